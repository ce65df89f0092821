"""Clips spread over a video without passing its end: testing, by SlowFast's rule."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from videogn.sampler.rate import check, frames_at


class SpreadClips:
    """`num_clips` clips; clip k starts at floor(k * (num_frames - span) / (num_clips - 1)), the first at the video's first frame,
    the last with its last. One clip alone starts in the middle, floor((num_frames - span) / 2).

    span = (clip_length - 1) * frame_stride + 1. In a video shorter than the span every clip starts at frame 0 and loops.

        10 frames, num_clips 2, clip_length 3, frame_stride 2: the span is 5 and the clips 0 2 4 and 5 7 9
        10 frames, num_clips 3, clip_length 3, frame_stride 4: the span is 9 and the clips 0 4 8, 0 4 8 and 1 5 9

    Args:
        clip_length: frames.
        frame_stride: frames from one to the next, of `target_fps` where it is given.
        num_clips: views in time.
        target_fps: see `frames_at`.

    Source: Feichtenhofer et al., SlowFast Networks, ICCV 2019, arXiv:1812.03982. Early versions of PySlowFast divide by num_clips
    instead, and their last clip ends before the video does.
    """

    rule = "spread"
    short_video = "loop"

    def __init__(self, clip_length: int, frame_stride: int, num_clips: int, target_fps: int | float | None = None) -> None:
        check(clip_length, frame_stride, target_fps, num_clips)
        self.clip_length = clip_length
        self.frame_stride = frame_stride
        self.num_clips = num_clips
        self.target_fps = target_fps

    def __call__(self, timestamps: Float64[np.ndarray, " F"], rng: np.random.Generator) -> Int64[np.ndarray, "views T"]:
        frames = frames_at(timestamps, self.target_fps)
        room = max(0, len(frames) - ((self.clip_length - 1) * self.frame_stride + 1))
        starts = np.arange(self.num_clips) * room // (self.num_clips - 1) if self.num_clips > 1 else np.array([room // 2])
        return frames[(starts[:, None] + np.arange(self.clip_length) * self.frame_stride) % len(frames)]
