"""Clips that follow each other from the first frame to the last: testing a whole video, and finding what happens when."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from videogn.number import is_count
from videogn.sampler.rate import MAX_COUNT, check, frames_at
from videogn.types import InputError


class SlidingClips:
    """As many clips as the video needs: they start at 0, hop, 2 hop, ..., and the last one ends with the video.

    span = (clip_length - 1) * frame_stride + 1. A video no longer than the span gives one clip, from frame 0, which loops.

        10 frames, clip_length 3, frame_stride 1, hop 3: the clips 0 1 2, 3 4 5, 6 7 8 and 7 8 9
        10 frames, clip_length 3, frame_stride 2, hop 6: the span is 5 and the clips 0 2 4 and 5 7 9
         4 frames, clip_length 3, frame_stride 2, hop 6: the clip 0 2 0

    Args:
        clip_length: frames.
        frame_stride: frames from one to the next, of `target_fps` where it is given.
        hop: frames from one start to the next; None: clip_length * frame_stride, where the clip before would go on.
        target_fps: see `frames_at`.

    Raises:
        InputError: no such number.
    """

    rule = "sliding"
    short_video = "loop"
    num_clips = None

    def __init__(
        self, clip_length: int, frame_stride: int, hop: int | None = None, target_fps: int | float | None = None
    ) -> None:
        check(clip_length, frame_stride, target_fps)
        if hop is not None and not is_count(hop, 1, MAX_COUNT):
            raise InputError(f"sampler: hop={hop}; give a whole number of frames from 1 to {MAX_COUNT}, or null")
        self.clip_length = clip_length
        self.frame_stride = frame_stride
        self.hop = clip_length * frame_stride if hop is None else hop
        self.target_fps = target_fps

    def __call__(self, timestamps: Float64[np.ndarray, " F"], rng: np.random.Generator) -> Int64[np.ndarray, "views T"]:
        frames = frames_at(timestamps, self.target_fps)
        last = max(0, len(frames) - ((self.clip_length - 1) * self.frame_stride + 1))
        starts = np.append(np.arange(0, last, self.hop), last)
        return frames[(starts[:, None] + np.arange(self.clip_length) * self.frame_stride) % len(frames)]
