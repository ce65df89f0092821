"""Training: a random window and a random mirror image, the same for every frame of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from videogn.transform.functional import cut
from videogn.types import InputError, Window


class RandomShortSideCrop:
    """Short side drawn uniformly from `short_side`, then a random square crop, then a mirror image with probability `flip`.

    The crop is found in the source frame and only it is resized: a crop of c pixels at short side s is a window of
    c * min(H, W) / s source pixels.

    Args:
        crop_size: side of the clip in pixels.
        short_side: smallest and largest short side in pixels, the smallest at least `crop_size`.
        flip: probability.
    """

    def __init__(self, crop_size: int, short_side: Sequence[int], flip: float) -> None:
        low, high = short_side
        if not crop_size <= low <= high:
            raise InputError(
                f"transform: short_side=[{low}, {high}] with crop_size={crop_size}; the rule is crop_size <= low <= high: set "
                "train_short_side"
            )
        if not 0 <= flip <= 1:
            raise InputError(f"transform: flip={flip} is no probability; give 0 to 1")
        self._crop_size = crop_size
        self._short_side = (low, high)
        self._flip = flip

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Window:
        short_side = rng.integers(self._short_side[0], self._short_side[1] + 1)
        side = max(1, round(self._crop_size * min(height, width) / short_side))
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        return Window(int(top), int(left), side, side, bool(rng.random() < self._flip))

    def cut(self, frames: UInt8[np.ndarray, "T H W 3"], window: Window) -> UInt8[Tensor, "T S S 3"]:
        return cut(frames, window, (self._crop_size, self._crop_size))
