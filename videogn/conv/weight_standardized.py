"""A convolution whose weights are standardized."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from videogn.conv.plain import PlainConv3d
from videogn.types import InputError


class WeightStandardizedConv3d(PlainConv3d):
    """Convolves with weights whose mean over each output channel's inputs and kernel is 0 and whose variance is 1:

        w' = (w - mean(w)) / sqrt(var(w) + eps)

    var is the biased variance over (C_in / groups, kT, kH, kW). The scale of w has no effect, up to eps. Its authors close with
    it the gap between group norm and large-batch batch norm on ImageNet.

    Args:
        eps: added to the variance of the weights, in units of w squared.
        others: those of PlainConv3d.

    Raises:
        InputError: one weight an output channel: its standardized value is always 0.

    Source: Qiao et al., Weight Standardization, arXiv:1903.10520, which adds 1e-5 to the standard deviation instead; eps within
    the root is what BiT and timm do.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        stride: int | tuple[int, int, int] = 1,
        padding: int | tuple[int, int, int] = 0,
        *,
        eps: float = 1e-6,
        bias: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias, **arguments)
        self.eps = eps
        if self.weight[0].numel() < 2:
            raise InputError(
                f"WeightStandardizedConv3d: in_channels={in_channels} kernel_size={kernel_size} groups={self.groups} is one "
                "weight an output channel, which standardized is always 0; use conv=plain"
            )

    def standardized_weight(self) -> Float[Tensor, "D C kT kH kW"]:
        """(w - mean) / sqrt(var + eps)"""
        var, mean = torch.var_mean(self.weight, [1, 2, 3, 4], correction=0, keepdim=True)
        return (self.weight - mean) * torch.rsqrt(var + self.eps)

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T2 H2 W2"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The convolution with the standardized weight."""
        return self._conv_forward(x, self.standardized_weight(), self.bias)
