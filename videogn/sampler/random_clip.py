"""One clip at a random place: training."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64


class RandomClip:
    """`clip_length` frames, `frame_stride` apart, from a start drawn uniformly among those where the whole clip fits.

    A video shorter than the clip's span starts at frame 0 and loops (video-nonlocal-net's rule).

        10 frames, clip_length 3, frame_stride 4: the span is 9, so start is 0 or 1 and the clip 0 4 8 or 1 5 9
         6 frames, clip_length 3, frame_stride 4: start is 0 and the clip 0 4 2 (frame 8 is frame 8 - 6)
    """

    rule = "random"
    num_clips = 1

    def __init__(self, clip_length: int, frame_stride: int) -> None:
        self.clip_length = clip_length
        self.frame_stride = frame_stride

    def __call__(self, timestamps: Float64[np.ndarray, " F"], rng: np.random.Generator) -> Int64[np.ndarray, "1 T"]:
        num_frames = len(timestamps)
        span = (self.clip_length - 1) * self.frame_stride + 1
        start = rng.integers(max(1, num_frames - span + 1))
        return ((start + np.arange(self.clip_length) * self.frame_stride) % num_frames)[None]
