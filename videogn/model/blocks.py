"""Residual blocks: y = relu(norm(branch(x)) + shortcut(x)).

The last norm of a block adds the shortcut and ends in the ReLU, and its gamma starts at 0 (`zero_init`), so that a
block starts as its shortcut. That is the identity or, where the shape changes, a projection or padding.
He et al., Deep Residual Learning, CVPR 2016, arXiv:1512.03385; zero gamma: Goyal et al., arXiv:1706.02677.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from videogn.model.recomputation import Block
from videogn.types import InputError

Layer = Callable[..., nn.Module]
Shortcut = Literal["projection", "padding"]


class ResidualBlock(Block):
    """The end of every block, around what a subclass builds.

    A subclass sets `last_norm` and writes `branch(x)`, the layers up to it.

    Args:
        shortcut: of the block's input, see `make_shortcut`.
        stochastic_depth: probability with which a clip skips the branch while training, others being scaled by
            1 / (1 - probability). Huang et al., ECCV 2016, arXiv:1603.09382.
    """

    last_norm: Any

    def __init__(self, shortcut: nn.Module, stochastic_depth: float) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.drop: nn.Module | None = None
        if stochastic_depth:
            from torchvision.ops import StochasticDepth  # takes most of a second, and few ask for it

            self.drop = StochasticDepth(stochastic_depth, "row")

    def branch(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T2 H2 W2"]:
        """The layers before the last norm."""
        raise NotImplementedError

    def compute(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T2 H2 W2"]:
        if self.drop is None or not self.training:
            return self.last_norm(self.branch(x), self.shortcut(x))
        return functional.relu(self.drop(self.last_norm.normalize(self.branch(x))) + self.shortcut(x))


def make_shortcut(
    kind: Shortcut, in_channels: int, out_channels: int, stride: tuple[int, int, int], norm: Layer, conv: Layer
) -> nn.Module:
    """The identity or, where the shape changes, what `kind` names: "projection" is a strided 1x1x1 convolution and a norm
    (type B), "padding" takes every stride-th position and adds channels of zeros (type A, no parameters).
    """
    if kind not in ("projection", "padding"):
        raise InputError(f"shortcut={kind!r}; use 'projection' or 'padding'")
    if in_channels == out_channels and stride == (1, 1, 1):
        return nn.Identity()
    if kind == "padding":
        return PaddedShortcut(out_channels - in_channels, stride)
    return nn.Sequential(conv(in_channels, out_channels, (1, 1, 1), stride=stride, padding=0), norm(out_channels))


class PaddedShortcut(nn.Module):
    """Every stride-th position, and channels of zeros behind the others: He et al. 2016, option A."""

    def __init__(self, num_channels: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        if num_channels < 0:
            raise InputError(f"shortcut=padding: a block ends in {-num_channels} channels less than it begins; use projection")
        self.num_channels = num_channels
        self.stride = stride

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T2 H2 W2"]:
        t, h, w = self.stride
        return functional.pad(x[:, :, ::t, ::h, ::w], (0, 0, 0, 0, 0, 0, 0, self.num_channels))

    def extra_repr(self) -> str:
        return f"{self.num_channels} channels of zeros, stride={self.stride}"


class BasicBlock(ResidualBlock):
    """tx3x3 with the strides, tx3x3.

    Args:
        in_channels, width: channels before and within; the block ends in `expansion` times `width`.
        norm, conv: see the contracts of the rooms `norm` and `conv`.
        temporal_kernel: t, odd.
        temporal_stride, spatial_stride: of the block.
        zero_init: gamma of the last norm starts at 0.
        shortcut, stochastic_depth: see make_shortcut and ResidualBlock.
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
        shortcut: Shortcut = "projection",
        stochastic_depth: float = 0.0,
    ) -> None:
        stride = (temporal_stride, spatial_stride, spatial_stride)
        super().__init__(make_shortcut(shortcut, in_channels, width, stride, norm, conv), stochastic_depth)
        kernel, padding = (temporal_kernel, 3, 3), (temporal_kernel // 2, 1, 1)
        self.conv1 = conv(in_channels, width, kernel, stride=stride, padding=padding)
        self.norm1 = norm(width, activation="relu")
        self.conv2 = conv(width, width, kernel, stride=1, padding=padding)
        self.norm2 = norm(width, activation="relu", zero_init=zero_init)

    @property
    def last_norm(self) -> Any:
        return self.norm2

    def branch(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T2 H2 W2"]:
        return self.conv2(self.norm1(self.conv1(x)))


class Bottleneck(ResidualBlock):
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
        shortcut: Shortcut = "projection",
        stochastic_depth: float = 0.0,
    ) -> None:
        out_channels = self.expansion * width
        stride = (temporal_stride, spatial_stride, spatial_stride)
        super().__init__(make_shortcut(shortcut, in_channels, out_channels, stride, norm, conv), stochastic_depth)
        first, second = self.windows(temporal_kernel, temporal_stride, spatial_stride)
        self.conv1 = conv(in_channels, width, **first)
        self.norm1 = norm(width, activation="relu")
        self.conv2 = conv(width, width, **second)
        self.norm2 = norm(width, activation="relu")
        self.conv3 = conv(width, out_channels, (1, 1, 1), stride=1, padding=0)
        self.norm3 = norm(out_channels, activation="relu", zero_init=zero_init)

    @staticmethod
    def windows(kernel: int, temporal_stride: int, spatial_stride: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Kernel, stride and padding of the first two convolutions."""
        return (
            {"kernel_size": (kernel, 1, 1), "stride": (temporal_stride, 1, 1), "padding": (kernel // 2, 0, 0)},
            {"kernel_size": (1, 3, 3), "stride": (1, spatial_stride, spatial_stride), "padding": (0, 1, 1)},
        )

    @property
    def last_norm(self) -> Any:
        return self.norm3

    def branch(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T2 H2 W2"]:
        return self.conv3(self.norm2(self.conv2(self.norm1(self.conv1(x)))))


class Bottleneck3D(Bottleneck):
    """1x1x1 to `width` channels, tx3x3 with the strides, 1x1x1 to four times `width`.

    Hara et al., Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?, CVPR 2018, arXiv:1711.09577.
    The arguments are those of BasicBlock.
    """

    @staticmethod
    def windows(kernel: int, temporal_stride: int, spatial_stride: int) -> tuple[dict[str, Any], dict[str, Any]]:
        return (
            {"kernel_size": (1, 1, 1), "stride": 1, "padding": 0},
            {
                "kernel_size": (kernel, 3, 3),
                "stride": (temporal_stride, spatial_stride, spatial_stride),
                "padding": (kernel // 2, 1, 1),
            },
        )
