"""What repeated trainings say together: their mean, and how sure of it one can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# The 97.5% quantile of Student's t with 1, 2, ... degrees of freedom.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Summary:
    """Of n values.

    Attributes:
        num: n.
        mean: theirs.
        half_width: of the 95% interval of the mean, t * s / sqrt(n), of Student's t with n - 1 degrees of freedom and s the
            standard deviation of the values; None for a single value, which has none. It assumes that the values are normally
            distributed and independent, which divisions of one set of videos are only nearly.
    """

    num: int
    mean: float
    half_width: float | None

    @property
    def bounds(self) -> tuple[float, float] | None:
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)


def summary(values: Sequence[float]) -> Summary:
    """Raises ValueError: no values."""
    num = len(values)
    if not num:
        raise ValueError("summary: no values; give one or more")
    mean = math.fsum(values) / num
    if num == 1:
        return Summary(1, mean, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (num - 1))
    return Summary(num, mean, _quantile(num - 1) * deviation / math.sqrt(num))


def _quantile(degrees: int) -> float:
    """Of Student's t at 97.5%."""
    if degrees <= len(_T):
        return _T[degrees - 1]
    # The first terms of Cornish and Fisher's expansion about the normal's z: right to 0.0002 here.
    z = 1.959964
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
