"""The options of 8-bit formats."""

from __future__ import annotations

from videogn.number import is_count
from videogn.types import InputError

QUANTIZATIONS = ("none", "dynamic", "static")


def check_quantization(quantization: str, precision: str, num_calibration_clips: int) -> None:
    """Raises InputError."""
    if quantization not in QUANTIZATIONS:
        raise InputError(f"export.quantization={quantization}: use one of {', '.join(QUANTIZATIONS)}")
    if quantization != "none" and precision != "fp32":
        raise InputError(
            f"export.precision={precision}: 8 bits are made from fp32; leave it out with export.quantization={quantization}"
        )
    if not is_count(num_calibration_clips, 1):
        raise InputError(f"export.num_calibration_clips={num_calibration_clips}: give 1 or more")
