"""Training: a random window, a random mirror image and a random appearance, the same for every frame of a clip."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8
from torch import Tensor

from videogn.number import is_number
from videogn.transform.appearance import RandomAppearance, area_range, aspect_range, random_box
from videogn.transform.functional import cut
from videogn.types import InputError, Window


class RandomCrop(ABC):
    """What the random crops share: the mirror image, the appearance, and the cut of `crop_size` pixels.

    Args:
        crop_size: side of the clip in pixels.
        flip: probability of a mirror image; false is 0, for classes that left and right tell apart, and true is 0.5.
        appearance: colour jitter, RandAugment and erasing; None for none.
    """

    def __init__(self, crop_size: int, flip: float | int, appearance: RandomAppearance | None) -> None:
        self._crop_size = crop_size
        self._flip = (0.5 if flip else 0.0) if isinstance(flip, bool) else flip
        self._appearance = appearance
        if not is_number(self._flip, high=1):
            raise InputError(f"transform: flip={flip} is no probability; give 0 to 1, or true or false: set dataset.flip")

    @abstractmethod
    def window(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) in the source frame."""

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Window:
        top, left, window_height, window_width = self.window(height, width, rng)
        return Window(top, left, window_height, window_width, bool(rng.random() < self._flip))

    def draw_appearance(self, rng: np.random.Generator) -> Float32[Tensor, "M 5"] | None:
        return self._appearance(self._crop_size, rng) if self._appearance is not None else None

    def cut(self, frames: UInt8[np.ndarray, "T H W 3"], window: Window) -> UInt8[Tensor, "T S S 3"]:
        return cut(frames, window, (self._crop_size, self._crop_size))


class RandomShortSideCrop(RandomCrop):
    """Short side drawn uniformly from `short_side`, then a random square crop, then a mirror image with probability `flip`.

    The crop is found in the source frame and only it is resized: a crop of c pixels at short side s is a window of
    c * min(H, W) / s source pixels.

    Args:
        short_side: smallest and largest short side in pixels, the smallest at least `crop_size`.
        crop_size, flip, appearance: RandomCrop's.
    """

    def __init__(
        self, crop_size: int, short_side: Sequence[int], flip: float | int, appearance: RandomAppearance | None = None
    ) -> None:
        super().__init__(crop_size, flip, appearance)
        sides = short_side if isinstance(short_side, Sequence) else ()
        if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
            raise InputError(f"transform: short_side={short_side}; give two whole numbers, [low, high]: set train_short_side")
        low, high = sides
        if not crop_size <= low <= high:
            raise InputError(
                f"transform: short_side=[{low}, {high}] with crop_size={crop_size}; the rule is crop_size <= low <= high: set "
                "train_short_side"
            )
        self._short_side = (low, high)

    def window(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        short_side = rng.integers(self._short_side[0], self._short_side[1] + 1)
        side = max(1, round(self._crop_size * min(height, width) / short_side))
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        return int(top), int(left), side, side


class RandomResizedCrop(RandomCrop):
    """A box of random area and aspect, resized to a square; then a mirror image with probability `flip`.

    The box is found in the source frame. Where ten draws do not fit, it is the largest centred box whose aspect lies in the
    range, torchvision's rule. Szegedy et al. 2015, arXiv:1409.4842.

    Args:
        area: smallest and largest share of the frame's area, uniform between.
        aspect: smallest and largest width over height, log-uniform between.
        crop_size, flip, appearance: RandomCrop's.
    """

    def __init__(
        self,
        crop_size: int,
        area: Sequence[float],
        aspect: Sequence[float],
        flip: float | int,
        appearance: RandomAppearance | None = None,
    ) -> None:
        super().__init__(crop_size, flip, appearance)
        self._area = area_range("transform: area", area)
        self._aspect = aspect_range("transform: aspect", aspect)

    def window(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        box = random_box(height, width, self._area, self._aspect, rng)
        if box is not None:
            return box
        low, high = self._aspect
        # At least a pixel, which an aspect far from the frame's would round away.
        h = max(1, min(height, round(width / low)))
        w = max(1, min(width, round(height * high)))
        return (height - h) // 2, (width - w) // 2, h, w
