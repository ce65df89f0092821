"""Clips spread evenly over a video: testing."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from videogn.sampler.rate import check, frames_at


class UniformClips:
    """`num_clips` clips; clip k starts at floor(k * num_frames / num_clips) and wraps round the end of the video.

    The rule of video-nonlocal-net, whose numbers the Group Normalization paper reports.

        10 frames, num_clips 2, clip_length 3, frame_stride 4: the clips 0 4 8 and 5 9 3

    Args:
        clip_length: frames.
        frame_stride: frames from one to the next, of `target_fps` where it is given.
        num_clips: views in time.
        target_fps: see `frames_at`.
    """

    rule = "wrap_round"
    short_video = "loop"

    def __init__(self, clip_length: int, frame_stride: int, num_clips: int, target_fps: int | float | None = None) -> None:
        check(clip_length, frame_stride, target_fps, num_clips)
        self.clip_length = clip_length
        self.frame_stride = frame_stride
        self.num_clips = num_clips
        self.target_fps = target_fps

    def __call__(self, timestamps: Float64[np.ndarray, " F"], rng: np.random.Generator) -> Int64[np.ndarray, "views T"]:
        frames = frames_at(timestamps, self.target_fps)
        starts = np.arange(self.num_clips) * len(frames) // self.num_clips
        return frames[(starts[:, None] + np.arange(self.clip_length) * self.frame_stride) % len(frames)]
