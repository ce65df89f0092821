"""3D residual networks: I3D, C2D, Slow and R3D are settings of one class."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from typing import Any

from torch import nn

from videogn.model.blocks import BasicBlock, Bottleneck, Bottleneck3D, Layer, Shortcut
from videogn.model.network import Size, VideoNetwork, smallest_input
from videogn.model.pool import MaxPool3d
from videogn.types import InputError

Window = tuple[Size, Size, Size]

_MAX_DEPTH = 1000  # of a stage; the deepest of ResNet-152 has 36


class ResNet3D(VideoNetwork):
    """conv1, pool1, res2, pool2, res3, res4, ..., then the average over (T, H, W), dropout and a linear layer.

    (N, 3, T, H, W) -> (N, K) for clips of any size from `smallest_clip` on. The layers up to the average are `trunk`,
    an nn.Sequential under the names above (and norm1 after conv1). Convolutions are padded by half their kernel.

    Args:
        num_classes: K.
        norm, conv: build the layers, see the contracts of the rooms `norm` and `conv`.
        block: "basic", "bottleneck" or "bottleneck_3d", see blocks.py.
        stem: conv1: `channels`, `kernel` and `stride`; sizes are [T, H, W].
        depths: blocks of each stage.
        widths: inner channels of each stage; a stage of bottlenecks ends in four times as many.
        temporal_kernels: t of the blocks (see blocks.py), odd: one number, or for each stage a number or a list with
            one per block.
        temporal_strides, spatial_strides: of the first block of each stage.
        pool1: max pooling after conv1: `kernel`, `stride`, and `padding` (default 0); None leaves it out.
        pool2: max pooling after the first stage, likewise.
        dropout: probability, before the linear layer.
        zero_init: gamma of the last norm of every block starts at 0; pretrained weights overwrite it.
        shortcut: where a block changes the shape: "projection" (type B) or "padding" (type A).
        stochastic_depth: probability with which training leaves out the branch of the last block; it rises evenly from
            that of the first, 1 / number of blocks of it.

    Raises:
        InputError: a setting that contradicts another or itself, by its name.

    Source: Wang et al., Non-local Neural Networks, CVPR 2018, arXiv:1711.07971 (I3D); Feichtenhofer et al., SlowFast Networks,
    ICCV 2019, arXiv:1812.03982 (Slow); Tran et al., A Closer Look at Spatiotemporal Convolutions, CVPR 2018, arXiv:1711.11248,
    and Hara et al., Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?, CVPR 2018, arXiv:1711.09577 (R3D).
    """

    blocks: Mapping[str, type[BasicBlock] | type[Bottleneck]] = {
        "basic": BasicBlock,
        "bottleneck": Bottleneck,
        "bottleneck_3d": Bottleneck3D,
    }
    stem_keys = frozenset({"channels", "kernel", "stride"})

    def __init__(
        self,
        num_classes: int,
        norm: Layer,
        conv: Layer,
        *,
        block: str,
        stem: Mapping[str, Any],
        depths: Sequence[int],
        widths: Sequence[int],
        temporal_kernels: int | Sequence[int | Sequence[int]],
        temporal_strides: Sequence[int],
        spatial_strides: Sequence[int],
        pool1: Mapping[str, Any] | None = None,
        pool2: Mapping[str, Any] | None = None,
        dropout: float = 0.0,
        zero_init: bool = True,
        shortcut: Shortcut = "projection",
        stochastic_depth: float = 0.0,
    ) -> None:
        if block not in self.blocks:
            raise InputError(f"ResNet3D: block={block!r}; use one of {', '.join(self.blocks)}")
        if not 0 <= stochastic_depth < 1:
            raise InputError(f"ResNet3D: stochastic_depth={stochastic_depth}; give a probability from 0 up to, not including, 1")
        widths = _per_stage("widths", widths, depths)
        temporal_strides = _per_stage("temporal_strides", temporal_strides, depths)
        spatial_strides = _per_stage("spatial_strides", spatial_strides, depths)
        kernels = _temporal_kernels(temporal_kernels, depths)
        kind = self.blocks[block]

        layers, channels, window = self.stem(norm, conv, **_stem(stem, self.stem_keys))
        trunk: OrderedDict[str, nn.Module] = OrderedDict(layers)
        windows = [window]
        if pool1 is not None:
            trunk["pool1"], window = _pool("pool1", pool1)
            windows.append(window)
        num_blocks = 0
        for stage, (width, t_stride, s_stride) in enumerate(zip(widths, temporal_strides, spatial_strides, strict=True), start=2):
            blocks = nn.Sequential()
            for kernel in kernels[stage - 2]:
                first = len(blocks) == 0
                num_blocks += 1
                blocks.append(
                    kind(
                        channels,
                        width,
                        norm,
                        conv,
                        temporal_kernel=kernel,
                        temporal_stride=t_stride if first else 1,
                        spatial_stride=s_stride if first else 1,
                        zero_init=zero_init,
                        shortcut=shortcut,
                        stochastic_depth=stochastic_depth * num_blocks / sum(depths),
                    )
                )
                channels = width * kind.expansion
            trunk[f"res{stage}"] = blocks
            windows.append(((1, 1, 1), (t_stride, s_stride, s_stride), (0, 0, 0)))
            if stage == 2 and pool2 is not None:
                trunk["pool2"], window = _pool("pool2", pool2)
                windows.append(window)
        super().__init__(nn.Sequential(trunk), channels, num_classes, dropout, smallest_input(windows))
        self.initialise()

    @staticmethod
    def stem(
        norm: Layer, conv: Layer, channels: int, kernel: Size, stride: Size
    ) -> tuple[list[tuple[str, nn.Module]], int, Window]:
        """The layers before pool1 with their names, the channels that they end in, and their window."""
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        conv1 = conv(3, channels, kernel, stride=stride, padding=padding)
        return [("conv1", conv1), ("norm1", norm(channels, activation="relu"))], channels, (kernel, stride, padding)


def _stem(setting: Mapping[str, Any], known: Set[str]) -> dict[str, Any]:
    _check_keys("stem", setting, known)
    kernel, stride = _size("stem.kernel", setting.get("kernel")), _size("stem.stride", setting.get("stride"))
    if not all(length % 2 for length in kernel):
        raise InputError(f"ResNet3D: stem.kernel={list(kernel)}; each length must be odd")
    channels = setting.get("channels")
    if not isinstance(channels, int) or channels < 1:
        raise InputError(f"ResNet3D: stem.channels={channels}; give the number of output channels of conv1")
    return {**setting, "kernel": kernel, "stride": stride}


def _per_stage(name: str, values: Sequence[int], depths: Sequence[int]) -> list[int]:
    if len(values) != len(depths) or any(value < 1 for value in (*values, *depths)):
        raise InputError(f"ResNet3D: {name}={list(values)} with depths={list(depths)}; give each a positive number per stage")
    return list(values)


def _temporal_kernels(kernels: int | Sequence[int | Sequence[int]], depths: Sequence[int]) -> list[list[int]]:
    """t of every block of every stage."""
    if any(depth > _MAX_DEPTH for depth in depths):
        raise InputError(f"ResNet3D: depths={list(depths)}; give at most {_MAX_DEPTH} blocks a stage")
    stages = [kernels] * len(depths) if isinstance(kernels, int) else kernels
    blocks = [[stage] * depth if isinstance(stage, int) else list(stage) for stage, depth in zip(stages, depths, strict=False)]
    if len(stages) != len(depths) or [len(stage) for stage in blocks] != list(depths):
        raise InputError(
            f"ResNet3D: temporal_kernels={blocks} with depths={list(depths)}; give one number, or for each stage one "
            "number or as many as it has blocks"
        )
    if any(kernel < 1 or kernel % 2 == 0 for stage in blocks for kernel in stage):
        raise InputError(f"ResNet3D: temporal_kernels={blocks}; each must be odd")
    return blocks


def _size(name: str, value: Any, smallest: int = 1) -> Size:
    """Three whole numbers, for T, H and W."""
    fits = isinstance(value, Sequence) and len(value) == 3
    if not fits or not all(isinstance(length, int) and length >= smallest for length in value):
        raise InputError(f"ResNet3D: {name}={value}; give [T, H, W], whole numbers from {smallest} on")
    return (value[0], value[1], value[2])


def _check_keys(name: str, setting: Mapping[str, Any], known: Set[str]) -> None:
    if unknown := set(setting) - known:
        raise InputError(f"ResNet3D: {name} has {sorted(unknown)}; it takes {', '.join(sorted(known))}")


def _pool(name: str, setting: Mapping[str, Any]) -> tuple[MaxPool3d, Window]:
    """The pool, and its window: kernel, stride, padding."""
    _check_keys(name, setting, {"kernel", "stride", "padding"})
    kernel = _size(f"{name}.kernel", setting.get("kernel"))
    stride = _size(f"{name}.stride", setting.get("stride"))
    padding = _size(f"{name}.padding", setting.get("padding", (0, 0, 0)), smallest=0)
    if any(2 * pad > length for pad, length in zip(padding, kernel, strict=True)):
        raise InputError(f"ResNet3D: {name}.padding={list(padding)}; it must be at most half of kernel={list(kernel)}")
    return MaxPool3d(kernel, stride, padding), (kernel, stride, padding)
