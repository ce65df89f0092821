"""The plain values of a configuration; everything else is checked by what is built from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from omegaconf import DictConfig

from videogn.types import InputError

_LOWEST = {
    "batch_size": 1,
    "clip_length": 1,
    "frame_stride": 1,
    "crop_size": 1,
    "clips_per_video": 1,
    "epochs": 1,
    "num_workers": 0,
    "seed": 0,
}


def check_counts(config: DictConfig, keys: Iterable[str]) -> None:
    """Raises InputError: a count that is none."""
    for key in keys:
        value, low = config[key], _LOWEST.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**63:
            raise InputError(f"{key}={value}: give a whole number from {low} up")


def check_values(config: DictConfig) -> None:
    """Raises InputError: a count that is none, a mean or std that is not one number a colour, no protocol."""
    check_counts(config, _LOWEST)
    if not config.get("evaluation"):
        raise InputError("evaluation: no protocol; give at least one, as evaluation=ten_clip")
    for key in ("mean", "std"):
        value = config[key]
        numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
        if len(numbers) != 3 or not all(isinstance(n, (int, float)) and (key == "mean" or n > 0) for n in numbers):
            rule = "three numbers" if key == "mean" else "three numbers above 0"
            raise InputError(f"{key}={value}: give {rule}, for R, G and B on the 0..255 scale, as {key}=[114.75,114.75,114.75]")
