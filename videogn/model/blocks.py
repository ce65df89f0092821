"""Residual blocks: y = relu(norm(branch(x)) + shortcut(x)).

The last norm of a block adds the shortcut and ends in the ReLU, and its gamma starts at 0 (`zero_init`), so that a
block starts as its shortcut. That is the identity or, where the shape changes, a strided 1x1x1 convolution and a norm.
He et al., Deep Residual Learning, CVPR 2016, arXiv:1512.03385; zero gamma: Goyal et al., arXiv:1706.02677.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

Layer = Callable[..., nn.Module]


class BasicBlock(nn.Module):
    """tx3x3 with the strides, tx3x3.

    Args:
        in_channels, width: channels before and within; the block ends in `expansion` times `width`.
        norm, conv: see the contracts of the rooms `norm` and `conv`.
        temporal_kernel: t, odd.
        temporal_stride, spatial_stride: of the block.
        zero_init: gamma of the last norm starts at 0.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        norm: Layer,
        conv: Layer,
        *,
        temporal_kernel: int = 3,
        temporal_stride: int = 1,
        spatial_stride: int = 1,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        kernel, padding = (temporal_kernel, 3, 3), (temporal_kernel // 2, 1, 1)
        stride = (temporal_stride, spatial_stride, spatial_stride)
        self.conv1 = conv(in_channels, width, kernel, stride=stride, padding=padding)
        self.norm1 = norm(width, activation="relu")
        self.conv2 = conv(width, width, kernel, stride=1, padding=padding)
        self.norm2 = norm(width, activation="relu", zero_init=zero_init)
        self.shortcut = _shortcut(in_channels, width, norm, conv, stride)

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T2 H2 W2"]:
        y = self.norm1(self.conv1(x))
        return self.norm2(self.conv2(y), self.shortcut(x))


class Bottleneck(nn.Module):
    """tx1x1 to `width` channels with the temporal stride, 1x3x3 with the spatial stride, 1x1x1 to four times `width`.

    t = 3 is the inflated block of Wang et al., Non-local Neural Networks, CVPR 2018, arXiv:1711.07971.
    The arguments are those of BasicBlock.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        norm: Layer,
        conv: Layer,
        *,
        temporal_kernel: int = 1,
        temporal_stride: int = 1,
        spatial_stride: int = 1,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = conv(
            in_channels,
            width,
            (temporal_kernel, 1, 1),
            stride=(temporal_stride, 1, 1),
            padding=(temporal_kernel // 2, 0, 0),
        )
        self.norm1 = norm(width, activation="relu")
        self.conv2 = conv(width, width, (1, 3, 3), stride=(1, spatial_stride, spatial_stride), padding=(0, 1, 1))
        self.norm2 = norm(width, activation="relu")
        self.conv3 = conv(width, out_channels, (1, 1, 1), stride=1, padding=0)
        self.norm3 = norm(out_channels, activation="relu", zero_init=zero_init)
        stride = (temporal_stride, spatial_stride, spatial_stride)
        self.shortcut = _shortcut(in_channels, out_channels, norm, conv, stride)

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T2 H2 W2"]:
        y = self.norm1(self.conv1(x))
        y = self.norm2(self.conv2(y))
        return self.norm3(self.conv3(y), self.shortcut(x))


def _shortcut(in_channels: int, out_channels: int, norm: Layer, conv: Layer, stride: tuple[int, int, int]) -> nn.Module:
    """The identity where the shape stays, else the projection (type B)."""
    if in_channels == out_channels and stride == (1, 1, 1):
        return nn.Identity()
    return nn.Sequential(conv(in_channels, out_channels, (1, 1, 1), stride=stride, padding=0), norm(out_channels))
