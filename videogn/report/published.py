"""The paper's figures that a sweep's own stand beside: Wu & He, Group Normalization, ECCV 2018, arXiv:1803.08494."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A table of the paper: of each line the error in percent at every place of the axis."""

    title: str
    axis: str
    lines: Mapping[str, Mapping[str, float]]


def _line(places: str, errors: str) -> dict[str, float]:
    return dict(zip(places.split(), map(float, errors.split()), strict=True))


_BATCHES = "2 4 8 16 32"
_HALVES = "1 2 4 8 16 32 64"
TABLES = (
    Published(
        "ResNet-50 on ImageNet, images a device",
        "batch_size",
        {
            "batch_norm": _line(_BATCHES, "34.7 27.3 24.8 23.7 23.6"),
            "group_norm": _line(_BATCHES, "24.1 24.2 24.0 24.2 24.1"),
        },
    ),
    Published(
        "I3D ResNet-50 on Kinetics-400, clips a device",
        "batch_size",
        {
            "batch_norm, 32 frames": _line("4 8", "27.9 26.7"),
            "group_norm, 32 frames": _line("4 8", "27.2 27.0"),
            "batch_norm, 64 frames": {"4": 26.7},
            "group_norm, 64 frames": {"4": 25.5},
        },
    ),
    Published(
        "ResNet-50 on ImageNet, groups", "norm.num_groups", {"group_norm": _line(_HALVES, "25.3 24.7 24.6 24.4 24.6 24.1 24.6")}
    ),
    Published(
        "ResNet-50 on ImageNet, channels a group",
        "norm.channels_per_group",
        {"group_norm": _line(_HALVES, "28.4 25.6 24.8 24.3 24.2 24.5 24.4")},
    ),
)


def tables(axis: str) -> list[Published]:
    """Those over this axis."""
    return [table for table in TABLES if table.axis == axis]
