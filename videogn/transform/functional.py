"""Pure functions on frames and batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from videogn.types import Window


def cut(frames: UInt8[np.ndarray, "T H W 3"], window: Window, size: tuple[int, int]) -> UInt8[Tensor, "T h w 3"]:
    """The window of every frame, resized to `size` (height, width) by antialiased bilinear interpolation.

    Crop before resize: the pixels outside the window are never touched.
    """
    top, left, height, width, _ = window
    patch = torch.from_numpy(frames[:, top : top + height, left : left + width])
    if (height, width) == size:
        return patch.contiguous()
    # (T, 3, h, w) over channels-last memory: torch has a uint8 kernel for it, and the way back is free.
    resized = interpolate(patch.permute(0, 3, 1, 2), size=size, mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1).contiguous()


def to_input(
    clips: UInt8[Tensor, "N T H W 3"],
    flips: Bool[Tensor, " N"],
    mean: Sequence[float],
    std: Sequence[float],
    appearance: Float32[Tensor, "N M 5"] | None = None,
) -> Float[Tensor, "N 3 T H W"]:
    """(x - mean) / std as float32 in the network's order of axes, clips with `flips` mirrored left to right.

    Between the two, each clip undergoes its own operations of `appearance`; what they uncover or erase takes the mean, 0 for the
    network but for the rounding to a whole pixel value.

    Runs on the device that holds the clips. On a GPU the memory stays channels-last (NDHWC); on a CPU it becomes
    contiguous, with which the training of resnet3d_tiny is 1.1 to 1.2 times as fast.
    """
    mirrored = torch.where(flips[:, None, None, None, None], clips.flip(3), clips) if bool(flips.any()) else clips
    if appearance is not None:
        from videogn.transform.operations import apply  # torchvision takes 2 s to import, and only this needs it

        fill = [float(min(255, max(0, round(m)))) for m in mean]
        # Clip by clip: on a stacked batch, torchvision's functions would share their parameters and statistics.
        mirrored = torch.stack([apply(clip, own, fill) for clip, own in zip(mirrored, appearance.tolist(), strict=True)])
    return normalized(mirrored, mean, std)


def normalized(clips: UInt8[Tensor, "N T H W 3"], mean: Sequence[float], std: Sequence[float]) -> Float[Tensor, "N 3 T H W"]:
    """(x - mean) / std as float32; on a GPU in channels-last memory, else contiguous."""
    scale = torch.tensor(std, device=clips.device).reciprocal()
    shift = -torch.tensor(mean, device=clips.device) * scale
    x = (clips.float() * scale + shift).permute(0, 4, 1, 2, 3)
    return x if x.is_cuda else x.contiguous()
