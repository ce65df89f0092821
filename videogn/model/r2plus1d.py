"""R(2+1)D: convolutions over space and over time in turn, with a norm and a ReLU between them."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from videogn.model.blocks import BasicBlock, Bottleneck3D, Layer
from videogn.model.network import Size
from videogn.model.resnet3d import ResNet3D, Window


class FactorizedConv3d(nn.Module):
    """1xkxk to `hidden` channels, a norm with ReLU, tx1x1; with `temporal_first` tx1x1 before 1xkxk.

    Args:
        in_channels, hidden, out_channels: before, between and behind.
        kernel, stride, padding: of the 3D convolution in whose place it stands, (T, H, W).
        norm, conv: see the contracts of the rooms `norm` and `conv`.
        temporal_first: the order of pytorchvideo's bottleneck.

    Source: Tran et al., A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018, arXiv:1711.11248.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel: Size,
        stride: Size,
        padding: Size,
        norm: Layer,
        conv: Layer,
        temporal_first: bool = False,
    ) -> None:
        super().__init__()
        space = {"kernel_size": (1, *kernel[1:]), "stride": (1, *stride[1:]), "padding": (0, *padding[1:])}
        time = {"kernel_size": (kernel[0], 1, 1), "stride": (stride[0], 1, 1), "padding": (padding[0], 0, 0)}
        first, second = (time, space) if temporal_first else (space, time)
        self.first = conv(in_channels, hidden, **first)
        self.norm = norm(hidden, activation="relu")
        self.second = conv(hidden, out_channels, **second)

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T2 H2 W2"]:
        return self.second(self.norm(self.first(x)))


class BasicBlock2Plus1D(BasicBlock):
    """BasicBlock of factorized convolutions, each with as many weights as the 3D one."""

    def __init__(self, in_channels: int, width: int, norm: Layer, conv: Layer, **settings: Any) -> None:
        super().__init__(in_channels, width, norm, _factorized(norm, conv), **settings)


class BasicBlock2Plus1DOfTorchvision(BasicBlock):
    """BasicBlock of factorized convolutions; the hidden channels of both are those of the first, as in torchvision."""

    def __init__(
        self, in_channels: int, width: int, norm: Layer, conv: Layer, *, temporal_kernel: int = 3, **settings: Any
    ) -> None:
        factorized = _factorized(norm, conv, _hidden(in_channels, width, (temporal_kernel, 3, 3)))
        super().__init__(in_channels, width, norm, factorized, temporal_kernel=temporal_kernel, **settings)


class Bottleneck2Plus1D(Bottleneck3D):
    """1x1x1, tx1x1 with the temporal stride, 1x3x3 with the spatial stride, 1x1x1: the block of pytorchvideo's r2plus1d_r50."""

    def __init__(self, in_channels: int, width: int, norm: Layer, conv: Layer, **settings: Any) -> None:
        super().__init__(in_channels, width, norm, _factorized(norm, conv, width, temporal_first=True), **settings)


class R2Plus1D(ResNet3D):
    """ResNet3D of factorized convolutions; see there for the arguments.

    `stem` may name `hidden` too, the channels between a factorized conv1's two; without it conv1 is one convolution.
    Blocks are "basic", "basic_torchvision" and "bottleneck".

    Source: Tran et al. 2018, arXiv:1711.11248.
    """

    blocks = {  # noqa: RUF012 - as in ResNet3D
        "basic": BasicBlock2Plus1D,
        "basic_torchvision": BasicBlock2Plus1DOfTorchvision,
        "bottleneck": Bottleneck2Plus1D,
    }
    stem_keys = ResNet3D.stem_keys | {"hidden"}

    @staticmethod
    def stem(
        norm: Layer, conv: Layer, channels: int, kernel: Size, stride: Size, hidden: int | None = None
    ) -> tuple[list[tuple[str, nn.Module]], int, Window]:
        layer = conv if hidden is None else _factorized(norm, conv, hidden)
        return ResNet3D.stem(norm, layer, channels, kernel, stride)


def _factorized(norm: Layer, conv: Layer, hidden: int | None = None, temporal_first: bool = False) -> Layer:
    """A `conv` that factorizes what reaches over both space and time; without `hidden` into as many weights."""

    def make(in_channels: int, out_channels: int, kernel_size: Size, stride: Any, padding: Any) -> nn.Module:
        if 1 in kernel_size:
            return conv(in_channels, out_channels, kernel_size, stride=stride, padding=padding)
        stride = (stride,) * 3 if isinstance(stride, int) else stride
        channels = (in_channels, hidden or _hidden(in_channels, out_channels, kernel_size), out_channels)
        return FactorizedConv3d(*channels, kernel_size, stride, padding, norm, conv, temporal_first)

    return make


def _hidden(in_channels: int, out_channels: int, kernel: Size) -> int:
    """So many that the two convolutions have the weights of the one: t k k i o = k k i h + t h o, rounded down."""
    t, area = kernel[0], kernel[1] * kernel[2]
    return t * area * in_channels * out_channels // (area * in_channels + t * out_channels)
