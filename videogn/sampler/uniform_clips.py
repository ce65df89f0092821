"""Clips spread evenly over a video: testing."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64


class UniformClips:
    """`num_clips` clips; clip k starts at floor(k * num_frames / num_clips) and wraps round the end of the video.

    The rule of video-nonlocal-net, whose numbers the Group Normalization paper reports.

        10 frames, num_clips 2, clip_length 3, frame_stride 4: the clips 0 4 8 and 5 9 3
    """

    rule = "wrap_round"

    def __init__(self, clip_length: int, frame_stride: int, num_clips: int) -> None:
        self.clip_length = clip_length
        self.frame_stride = frame_stride
        self.num_clips = num_clips

    def __call__(self, timestamps: Float64[np.ndarray, " F"], rng: np.random.Generator) -> Int64[np.ndarray, "views T"]:
        num_frames = len(timestamps)
        starts = np.arange(self.num_clips) * num_frames // self.num_clips
        return (starts[:, None] + np.arange(self.clip_length) * self.frame_stride) % num_frames
