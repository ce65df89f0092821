"""The original I3D: Inception-V1 inflated to 3D."""

from __future__ import annotations

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from videogn.kernel.max_pool3d import max_pool3d
from videogn.model.blocks import Layer
from videogn.model.network import Size, VideoNetwork
from videogn.model.recomputation import Block

# Channels of the four branches: 1x1x1; 1x1x1 and 3x3x3; 1x1x1 and 3x3x3 (5x5 in 2D); 1x1x1 behind a pool.
MIXED = {
    "mixed3b": (64, (96, 128), (16, 32), 32),
    "mixed3c": (128, (128, 192), (32, 96), 64),
    "mixed4b": (192, (96, 208), (16, 48), 64),
    "mixed4c": (160, (112, 224), (24, 64), 64),
    "mixed4d": (128, (128, 256), (24, 64), 64),
    "mixed4e": (112, (144, 288), (32, 64), 64),
    "mixed4f": (256, (160, 320), (32, 128), 128),
    "mixed5b": (256, (160, 320), (32, 128), 128),
    "mixed5c": (384, (192, 384), (48, 128), 128),
}
# Pools, (kernel, stride), by the layer that they stand before.
POOLS: dict[str, tuple[str, Size, Size]] = {
    "conv2b": ("pool2a", (1, 3, 3), (1, 2, 2)),
    "mixed3b": ("pool3a", (1, 3, 3), (1, 2, 2)),
    "mixed4b": ("pool4a", (3, 3, 3), (2, 2, 2)),
    "mixed5b": ("pool5a", (2, 2, 2), (2, 2, 2)),
}


class InceptionI3D(VideoNetwork):
    """(N, 3, T, H, W) -> (N, K), with the names of the authors' layers: conv1a, pool2a, ..., mixed5c.

    Paddings are TensorFlow's "SAME": a stride s leaves ceil(length / s) positions, and an odd number of zeros to add has one
    more behind than before. Features are the mean over time of the mean of two frames in turn, as the authors' last pool does.

    Args:
        num_classes: K.
        norm, conv: build the layers, see the contracts of the rooms `norm` and `conv`. Widths are no multiples of 32.
        dropout: probability, before the linear layer.

    Source: Carreira & Zisserman, Quo Vadis, Action Recognition?, CVPR 2017, arXiv:1705.07750.
    """

    def __init__(self, num_classes: int, norm: Layer, conv: Layer, *, dropout: float = 0.5) -> None:
        trunk: OrderedDict[str, nn.Module] = OrderedDict()
        trunk["conv1a"], channels = ConvNorm(3, 64, (7, 7, 7), norm, conv, stride=(2, 2, 2)), 64
        for name in ("conv2b", "conv2c", *MIXED):
            if name in POOLS:
                pool, kernel, stride = POOLS[name]
                trunk[pool] = SamePool(kernel, stride)
            if name == "conv2b":
                trunk[name], channels = ConvNorm(64, 64, (1, 1, 1), norm, conv), 64
            elif name == "conv2c":
                trunk[name], channels = ConvNorm(64, 192, (3, 3, 3), norm, conv), 192
            else:
                mixed = Mixed(channels, *MIXED[name], norm, conv)
                trunk[name], channels = mixed, mixed.out_channels
        super().__init__(nn.Sequential(trunk), channels, num_classes, dropout, smallest_clip=(1, 1, 1))
        self.initialise()

    def features(self, clips: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        self._check(clips)
        x = self.trunk(clips)
        if x.shape[2] > 1:
            x = functional.avg_pool3d(x, (2, 1, 1), stride=1)
        return x.mean(dim=(2, 3, 4))


class ConvNorm(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Size, norm: Layer, conv: Layer, stride: Size = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.window = kernel, stride
        self.conv = conv(in_channels, out_channels, kernel, stride=stride, padding=0)
        self.norm = norm(out_channels, activation="relu")

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T2 H2 W2"]:
        return self.norm(self.conv(same(x, *self.window)))


class SamePool(nn.Module):
    """The maximum over windows; zeros around, which no ReLU falls below."""

    def __init__(self, kernel: Size, stride: Size) -> None:
        super().__init__()
        self.window = kernel, stride

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N C T2 H2 W2"]:
        kernel, stride = self.window
        return max_pool3d(same(x, kernel, stride), kernel, stride)

    def extra_repr(self) -> str:
        return "kernel={}, stride={}".format(*self.window)


class Mixed(Block):
    """Four branches side by side, their channels one behind the other."""

    def __init__(
        self, in_channels: int, one: int, two: tuple[int, int], three: tuple[int, int], four: int, norm: Layer, conv: Layer
    ) -> None:
        super().__init__()
        point, cube = (1, 1, 1), (3, 3, 3)
        self.branch0 = ConvNorm(in_channels, one, point, norm, conv)
        self.branch1 = nn.Sequential(ConvNorm(in_channels, two[0], point, norm, conv), ConvNorm(two[0], two[1], cube, norm, conv))
        self.branch2 = nn.Sequential(
            ConvNorm(in_channels, three[0], point, norm, conv), ConvNorm(three[0], three[1], cube, norm, conv)
        )
        self.branch3 = nn.Sequential(SamePool(cube, point), ConvNorm(in_channels, four, point, norm, conv))
        self.out_channels = one + two[1] + three[1] + four

    def compute(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T H W"]:
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], 1)


def same(x: Float[Tensor, "N C T H W"], kernel: Size, stride: Size) -> Float[Tensor, "N C T2 H2 W2"]:
    """x with the zeros around that leave ceil(length / stride) windows on each axis."""
    pads: list[int] = []
    for length, size, step in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):  # torch pads from the last axis on
        total = max((-(-length // step) - 1) * step + size - length, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads) if any(pads) else x
