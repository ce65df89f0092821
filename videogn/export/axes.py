"""The axes of a clip that an artifact may leave free."""

from __future__ import annotations

AXES = ("batch", "time", "height", "width")


def positions(takes_frames: bool) -> dict[str, int]:
    """Where each of AXES stands in the input: uint8 (N, T, H, W, 3), or float32 (N, 3, T, H, W)."""
    return dict(zip(AXES, (0, 1, 2, 3) if takes_frames else (0, 2, 3, 4), strict=True))
