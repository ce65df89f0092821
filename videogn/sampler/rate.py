"""A video as it would be at another frame rate."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from videogn.number import is_count, is_positive
from videogn.types import InputError

MAX_FPS = 1000  # as many as `videogn prepare` writes; each frame of such a video is an index
MAX_COUNT = 2**20  # of frames, of clips: their products are still indices

# Matroska writes times in whole milliseconds, of which a third frame of 30 a second lies half a one after its time.
TOLERANCE_SECONDS = 1e-3


def check(clip_length: object, frame_stride: object, target_fps: object, num_clips: object = 1) -> None:
    """Raises InputError: no such number of frames or clips, or no such rate."""
    for name, value in (("clip_length", clip_length), ("frame_stride", frame_stride), ("num_clips", num_clips)):
        if not is_count(value, 1, MAX_COUNT):
            raise InputError(f"sampler: {name}={value}; give a whole number from 1 to {MAX_COUNT}")
    if target_fps is not None and not is_positive(target_fps, MAX_FPS):
        raise InputError(
            f"sampler: target_fps={target_fps}; give frames per second above 0, at most {MAX_FPS}, or null for each video's own"
        )


def frames_at(timestamps: Float64[np.ndarray, " F"], target_fps: int | float | None) -> Int64[np.ndarray, " V"]:
    """The frames that a video of `target_fps` frames per second would show: at first + k / target_fps that on screen then.

    The last frame stays on screen for the median time between two. None leaves the video as it is. A clip's sampler counts in
    these frames, so that a clip of 16 at stride 2 and target_fps 15 spans the same seconds in every video, also of a variable
    frame rate.

        4 frames at 0.0, 0.1, 0.2, 0.3 s, target_fps 5: 0 2; target_fps 20: 0 0 1 1 2 2 3 3
        3 frames at 0.0, 0.1, 0.4 s, target_fps 10:     0 1 1 1 2 2
    """
    if target_fps is None or len(timestamps) < 2:
        return np.arange(len(timestamps))
    seconds = timestamps - timestamps[0]
    count = max(1, round((seconds[-1] + float(np.median(np.diff(seconds)))) * target_fps))
    return np.searchsorted(seconds, np.arange(count) / target_fps + TOLERANCE_SECONDS, side="right") - 1
