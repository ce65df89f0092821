"""Training: colour jitter, RandAugment and random erasing, drawn in the worker for operations.py to apply on the device.

What is drawn is a table of operations, (M, 5): in each row an Operation and up to four arguments. It travels with the clip.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from videogn.number import is_count, is_number
from videogn.types import InputError

MAX_ASPECT = 1000.0  # a box of a pixel's breadth in most videos; beyond, its sides overflow
_LEVELS = 30  # RandAugment's magnitudes run from 0 to 30
_Row = tuple[int | float, ...]  # an Operation and its arguments


class Operation(IntEnum):
    """What a row of the table does; in parentheses its arguments."""

    IDENTITY = 0
    BRIGHTNESS = 1  # (factor), as the next two: 1 changes nothing
    CONTRAST = 2
    SATURATION = 3
    HUE = 4  # (shift), in turns
    SHEAR_X = 5  # (tangent of the angle), as the next
    SHEAR_Y = 6
    TRANSLATE_X = 7  # (pixels), as the next
    TRANSLATE_Y = 8
    ROTATE = 9  # (degrees)
    SHARPNESS = 10  # (factor)
    POSTERIZE = 11  # (bits kept)
    SOLARIZE = 12  # (threshold), 0 to 255
    AUTO_CONTRAST = 13
    EQUALIZE = 14
    ERASE = 15  # (top, left, height, width), pixels


# torchvision's RandAugment. Cubuk et al. 2019, arXiv:1909.13719.
RAND_AUGMENT = (
    Operation.IDENTITY,
    Operation.SHEAR_X,
    Operation.SHEAR_Y,
    Operation.TRANSLATE_X,
    Operation.TRANSLATE_Y,
    Operation.ROTATE,
    Operation.BRIGHTNESS,
    Operation.SATURATION,
    Operation.CONTRAST,
    Operation.SHARPNESS,
    Operation.POSTERIZE,
    Operation.SOLARIZE,
    Operation.AUTO_CONTRAST,
    Operation.EQUALIZE,
)


class RandomAppearance:
    """Draws colour jitter, then RandAugment, then random erasing; all of them off unless asked for.

    Args:
        brightness, contrast, saturation: the factor is uniform in [max(0, 1 - value), 1 + value]. The order of the colour
            operations is random, as in torchvision's ColorJitter.
        hue: the shift is uniform in [-value, value] turns, at most 0.5.
        num_ops: operations of RandAugment, drawn with repetition.
        magnitude: of RandAugment's operations, 0 to 30.
        magnitude_std: of a normal deviate added to the magnitude of each operation, which then stays within 0 to 30; 0 for none.
        erase_probability: of erasing a box. Zhong et al. 2017, arXiv:1708.04896.
        erase_area: smallest and largest share of the frame that the box takes.
        erase_aspect: smallest and largest height over width of the box, log-uniform between.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        num_ops: int = 0,
        magnitude: float = 9.0,
        magnitude_std: float = 0.0,
        erase_probability: float = 0.0,
        erase_area: Sequence[float] = (0.02, 0.33),
        erase_aspect: Sequence[float] = (0.3, 3.3),
    ) -> None:
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if not is_number(value):
                raise InputError(f"appearance: {name}={value}; the factor lies within 1 - {name} and 1 + {name}: give 0 or more")
        if not is_number(hue, high=0.5):
            raise InputError(f"appearance: hue={hue}; give 0 to 0.5, half a turn of the colour circle")
        if not is_count(num_ops):
            raise InputError(f"appearance: num_ops={num_ops}; give a whole number from 0 (no RandAugment) up")
        if not is_number(magnitude, high=_LEVELS):
            raise InputError(f"appearance: magnitude={magnitude}; give 0 to {_LEVELS}")
        if not is_number(magnitude_std):
            raise InputError(f"appearance: magnitude_std={magnitude_std}; give 0 or more")
        if not is_number(erase_probability, high=1):
            raise InputError(f"appearance: erase_probability={erase_probability} is no probability; give 0 to 1")
        self._factors = ((Operation.BRIGHTNESS, brightness), (Operation.CONTRAST, contrast), (Operation.SATURATION, saturation))
        self._hue = hue
        self._num_ops = num_ops
        self._magnitude = magnitude
        self._magnitude_std = magnitude_std
        self._erase_probability = erase_probability
        self._erase_area = area_range("appearance: erase_area", erase_area)
        self._erase_aspect = aspect_range("appearance: erase_aspect", erase_aspect)

    def __call__(self, size: int, rng: np.random.Generator) -> Float32[Tensor, "M 5"] | None:
        """The operations of one clip; None where nothing is asked for.

        Args:
            size: side of the clip in pixels.
        """
        rows = self._color_jitter(rng)
        rows += [self._rand_augment(size, rng) for _ in range(self._num_ops)]
        if self._erase_probability > 0:
            rows.append(self._erase(size, rng))
        if not rows:
            return None
        return torch.tensor([(*row, 0.0, 0.0, 0.0, 0.0)[:5] for row in rows], dtype=torch.float32)

    def _color_jitter(self, rng: np.random.Generator) -> list[_Row]:
        rows: list[_Row] = [(operation, rng.uniform(max(0.0, 1 - v), 1 + v)) for operation, v in self._factors if v > 0]
        if self._hue > 0:
            rows.append((Operation.HUE, rng.uniform(-self._hue, self._hue)))
        return [rows[i] for i in rng.permutation(len(rows))]

    def _rand_augment(self, size: int, rng: np.random.Generator) -> _Row:
        operation = RAND_AUGMENT[rng.integers(len(RAND_AUGMENT))]
        sign = 1.0 if rng.random() < 0.5 else -1.0
        magnitude = rng.normal(self._magnitude, self._magnitude_std) if self._magnitude_std > 0 else self._magnitude
        level = min(max(magnitude, 0.0), float(_LEVELS)) / _LEVELS
        return operation, rand_augment_argument(operation, level, sign, size)

    def _erase(self, size: int, rng: np.random.Generator) -> _Row:
        if rng.random() >= self._erase_probability:
            return (Operation.IDENTITY,)
        low, high = self._erase_aspect
        box = random_box(size, size, self._erase_area, (1 / high, 1 / low), rng)  # ours is width over height
        return (Operation.IDENTITY,) if box is None else (Operation.ERASE, *box)


def rand_augment_argument(operation: Operation, level: float, sign: float, size: int) -> float:
    """The argument of an operation at `level` (0 to 1) of torchvision's strongest; `sign` is 1 or -1, `size` in pixels."""
    match operation:
        case Operation.SHEAR_X | Operation.SHEAR_Y:
            return sign * 0.3 * level
        case Operation.TRANSLATE_X | Operation.TRANSLATE_Y:
            return sign * int(150 / 331 * size * level)
        case Operation.ROTATE:
            return sign * 30.0 * level
        case Operation.BRIGHTNESS | Operation.SATURATION | Operation.CONTRAST | Operation.SHARPNESS:
            return 1 + sign * 0.9 * level
        case Operation.POSTERIZE:
            return float(round(8 - 4 * level))
        case Operation.SOLARIZE:
            return 255 * (1 - level)
    return 0.0


def random_box(
    height: int, width: int, area: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """(top, left, height, width) in pixels of a random box in a frame; None where ten draws in a row did not fit.

    Its share of the frame's area is uniform in `area`, width over height log-uniform in `aspect`, its place uniform.
    """
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    return None


def area_range(name: str, value: object) -> tuple[float, float]:
    """(low, high); raises InputError where they are no shares of an area."""
    low, high = _pair(name, value)
    if not 0 < low <= high <= 1:
        raise InputError(f"{name}=[{low}, {high}]; shares of the frame's area: give 0 < low <= high <= 1")
    return low, high


def aspect_range(name: str, value: object) -> tuple[float, float]:
    """(low, high); raises InputError where they are no aspects."""
    low, high = _pair(name, value)
    if not 1 / MAX_ASPECT <= low <= high <= MAX_ASPECT:
        raise InputError(f"{name}=[{low}, {high}]; quotients of two sides: give {1 / MAX_ASPECT} <= low <= high <= {MAX_ASPECT}")
    return low, high


def _pair(name: str, value: object) -> tuple[float, float]:
    if not isinstance(value, Sequence) or len(value) != 2 or not all(is_number(v, low=-sys.float_info.max) for v in value):
        raise InputError(f"{name}={value}; give two numbers, [low, high]")
    return value[0], value[1]
