"""Which values of a configuration are numbers: true and false are none, nor are nan, inf and text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypeGuard


def is_number(value: object, low: int | float = 0, high: int | float = sys.float_info.max) -> TypeGuard[int | float]:
    """Whether it is a number from `low` to `high`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def is_positive(value: object, high: int | float = sys.float_info.max) -> TypeGuard[int | float]:
    """Whether it is a number above 0, up to `high`."""
    return is_number(value, high=high) and value > 0


def is_count(value: object, low: int = 0, high: int = 2**63 - 1) -> TypeGuard[int]:
    """Whether it is a whole number from `low` to `high`."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_rgb(value: object, positive: bool = False) -> bool:
    """Whether it is a list of three numbers, of R, G and B; `positive`: all above 0."""
    low = sys.float_info.min if positive else -sys.float_info.max
    return (
        isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3 and all(is_number(n, low) for n in value)
    )
