"""The ordinary convolution."""

from __future__ import annotations

from typing import Any

from torch import nn


class PlainConv3d(nn.Conv3d):
    """torch.nn.Conv3d without a bias, since the norm that follows has one (beta) and would remove this one.

    Sizes are (T, H, W), or one number for all three; see torch.nn.Conv3d for the other arguments.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        stride: int | tuple[int, int, int] = 1,
        padding: int | tuple[int, int, int] = 0,
        *,
        bias: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias, **arguments)
