"""2D kernels as 3D kernels."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

Inflation = Literal["repeat", "center"]


def inflate(weight: Float[Tensor, "D C H W"], length: int, inflation: Inflation = "repeat") -> Float[Tensor, "D C T H W"]:
    """A kernel over `length` frames whose sum over them is the 2D kernel.

    "repeat" takes it `length` times, divided by `length`; "center" puts it into the frame in the middle and zeros around.
    Either computes on a clip of one repeated frame what the 2D kernel computes on the frame, but "repeat" not where the window
    reaches over the temporal edge, whose padding is zeros. Group norm spreads what is different there over the whole clip.

    Source: Carreira & Zisserman, CVPR 2017, arXiv:1705.07750 (repeat); Wang et al., CVPR 2018, arXiv:1711.07971, and
    Feichtenhofer et al., NIPS 2016, arXiv:1611.02155 (center).
    """
    if inflation == "repeat":
        return weight.unsqueeze(2).repeat(1, 1, length, 1, 1) / length
    inflated = weight.new_zeros(*weight.shape[:2], length, *weight.shape[2:])
    inflated[:, :, length // 2] = weight
    return inflated
