"""One clip at a random place: training."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from videogn.sampler.rate import check, frames_at
from videogn.types import InputError


class RandomClip:
    """`clip_length` frames, `frame_stride` apart, from a start drawn uniformly among those where the whole clip fits.

    A video shorter than the clip's span starts at frame 0 and loops (video-nonlocal-net's rule).

        10 frames, clip_length 3, frame_stride 4: the span is 9, so start is 0 or 1 and the clip 0 4 8 or 1 5 9
         6 frames, clip_length 3, frame_stride 4: start is 0 and the clip 0 4 2 (frame 8 is frame 8 - 6)

    With `temporal_jitter` (mmaction2's) every frame is drawn uniformly from the `frame_stride` frames that begin at its own, the
    last as far as the video goes; without a loop, indices still increase.

        10 frames, clip_length 3, frame_stride 4, start 1: one of 1 2 3 4, one of 5 6 7 8, and 9

    Args:
        clip_length: frames.
        frame_stride: frames from one to the next, of `target_fps` where it is given.
        temporal_jitter: whether it varies; a stride of 1 leaves nothing to draw.
        target_fps: see `frames_at`.
    """

    rule = "random"
    short_video = "loop"
    num_clips = 1

    def __init__(
        self, clip_length: int, frame_stride: int, temporal_jitter: bool = False, target_fps: int | float | None = None
    ) -> None:
        check(clip_length, frame_stride, target_fps)
        if not isinstance(temporal_jitter, bool):
            raise InputError(f"sampler: temporal_jitter={temporal_jitter}; give true or false")
        self.clip_length = clip_length
        self.frame_stride = frame_stride
        self.target_fps = target_fps
        self._temporal_jitter = temporal_jitter

    def __call__(self, timestamps: Float64[np.ndarray, " F"], rng: np.random.Generator) -> Int64[np.ndarray, "1 T"]:
        frames = frames_at(timestamps, self.target_fps)
        num_frames = len(frames)
        span = (self.clip_length - 1) * self.frame_stride + 1
        start = rng.integers(max(1, num_frames - span + 1))
        indices = start + np.arange(self.clip_length) * self.frame_stride
        if self._temporal_jitter:
            room = np.full(self.clip_length, self.frame_stride)
            if span <= num_frames:
                room = np.minimum(room, num_frames - indices)
            indices += rng.integers(room)
        return frames[indices % num_frames][None]
