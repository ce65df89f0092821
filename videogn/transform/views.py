"""Testing: the same windows for every clip of a video."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from videogn.transform.functional import cut
from videogn.types import InputError, Window


class Crops:
    """One centred square of `crop_size` at short side `short_side`, or three along the long side.

    Args:
        crop_size: side of the clip in pixels.
        short_side: of the resized frame in pixels, at least `crop_size`.
        crops: 1 (centre) or 3 (both ends and the centre of the long side).
    """

    def __init__(self, crop_size: int, short_side: int, crops: int) -> None:
        if crop_size < 1:
            raise InputError(f"evaluation: crop_size={crop_size}; give pixels, from 1 up")
        if short_side < crop_size:
            raise InputError(
                f"evaluation: crop_size={crop_size} does not fit into short_side={short_side}; set test_short_side to at "
                "least crop_size"
            )
        if crops not in (1, 3):
            raise InputError(f"evaluation: crops={crops}; use 1 (centre) or 3 (ends and centre of the long side)")
        self.crop_size = crop_size
        self.short_side = short_side
        self.crops = crops

    def windows(self, height: int, width: int) -> list[Window]:
        side = max(1, round(self.crop_size * min(height, width) / self.short_side))
        tops, lefts = [(height - side) // 2], [(width - side) // 2]
        if self.crops == 3:
            if width >= height:
                lefts = [0, (width - side) // 2, width - side]
            else:
                tops = [0, (height - side) // 2, height - side]
        return [Window(top, left, side, side) for top in tops for left in lefts]

    def cut(self, frames: UInt8[np.ndarray, "T H W 3"], window: Window) -> UInt8[Tensor, "T S S 3"]:
        return cut(frames, window, (self.crop_size, self.crop_size))


class WholeFrame:
    """The whole frame at short side `short_side`; the long side is rounded down, torchvision's rule.

    Videos of different shapes give views of different shapes, so no batch holds two videos.

    Args:
        short_side: of the resized frame in pixels.
    """

    crop_size = None
    crops = 1

    def __init__(self, short_side: int) -> None:
        if short_side < 1:
            raise InputError(f"evaluation: short_side={short_side}; set test_short_side to at least 1")
        self.short_side = short_side

    def windows(self, height: int, width: int) -> list[Window]:
        return [Window(0, 0, height, width)]

    def cut(self, frames: UInt8[np.ndarray, "T H W 3"], window: Window) -> UInt8[Tensor, "T h w 3"]:
        height, width = window.height, window.width
        short = min(height, width)
        return cut(frames, window, (self.short_side * height // short, self.short_side * width // short))
