"""3D residual networks: I3D, C2D, Slow and R3D are settings of one class."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from videogn.model.blocks import BasicBlock, Bottleneck, Layer
from videogn.types import InputError

BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}

Size = tuple[int, int, int]


class ResNet3D(nn.Module):
    """conv1, pool1, res2, pool2, res3, res4, ..., then the average over (T, H, W), dropout and a linear layer.

    (N, 3, T, H, W) -> (N, K) for clips of any size from `smallest_clip` on. The layers up to the average are `trunk`,
    an nn.Sequential under the names above (and norm1 after conv1). Convolutions are padded by half their kernel.
    Initialisation: He (fan-out) for convolutions, normal with standard deviation 0.01 for the linear layer.

    Args:
        num_classes: K.
        norm, conv: build the layers, see the contracts of the rooms `norm` and `conv`.
        block: "basic" or "bottleneck".
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

    Raises:
        InputError: a setting that contradicts another or itself, by its name.

    Source: Wang et al., Non-local Neural Networks, CVPR 2018, arXiv:1711.07971 (I3D); Tran et al., A Closer Look at
    Spatiotemporal Convolutions, CVPR 2018, arXiv:1711.11248 (R3D).
    """

    def __init__(
        self,
        num_classes: int,
        norm: Layer,
        conv: Layer,
        *,
        block: Literal["basic", "bottleneck"],
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
    ) -> None:
        super().__init__()
        if block not in BLOCKS:
            raise InputError(f"ResNet3D: block={block!r}; use one of {', '.join(BLOCKS)}")
        if num_classes < 1:
            raise InputError(f"ResNet3D: num_classes={num_classes}; a classifier needs at least 1")
        if not 0 <= dropout < 1:
            raise InputError(f"ResNet3D: dropout={dropout}; give a probability from 0 up to, not including, 1")
        widths = _per_stage("widths", widths, depths)
        temporal_strides = _per_stage("temporal_strides", temporal_strides, depths)
        spatial_strides = _per_stage("spatial_strides", spatial_strides, depths)
        kernels = _temporal_kernels(temporal_kernels, depths)

        _check_keys("stem", stem, {"channels", "kernel", "stride"})
        stem_kernel = _size("stem.kernel", stem.get("kernel"))
        if not all(length % 2 for length in stem_kernel):
            raise InputError(f"ResNet3D: stem.kernel={list(stem_kernel)}; each length must be odd")
        stem_stride = _size("stem.stride", stem.get("stride"))
        stem_padding = (stem_kernel[0] // 2, stem_kernel[1] // 2, stem_kernel[2] // 2)
        channels = stem.get("channels")
        if not isinstance(channels, int) or channels < 1:
            raise InputError(f"ResNet3D: stem.channels={channels}; give the number of output channels of conv1")

        trunk: OrderedDict[str, nn.Module] = OrderedDict()
        trunk["conv1"] = conv(3, channels, stem_kernel, stride=stem_stride, padding=stem_padding)
        trunk["norm1"] = norm(channels, activation="relu")
        windows = [(stem_kernel, stem_stride, stem_padding)]
        if pool1 is not None:
            trunk["pool1"], window = _pool("pool1", pool1)
            windows.append(window)
        for stage, (width, t_stride, s_stride) in enumerate(zip(widths, temporal_strides, spatial_strides, strict=True), start=2):
            blocks = nn.Sequential()
            for kernel in kernels[stage - 2]:
                first = len(blocks) == 0
                blocks.append(
                    BLOCKS[block](
                        channels,
                        width,
                        norm,
                        conv,
                        temporal_kernel=kernel,
                        temporal_stride=t_stride if first else 1,
                        spatial_stride=s_stride if first else 1,
                        zero_init=zero_init,
                    )
                )
                channels = width * BLOCKS[block].expansion
            trunk[f"res{stage}"] = blocks
            windows.append(((1, 1, 1), (t_stride, s_stride, s_stride), (0, 0, 0)))
            if stage == 2 and pool2 is not None:
                trunk["pool2"], window = _pool("pool2", pool2)
                windows.append(window)
        self.trunk = nn.Sequential(trunk)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes)
        self.smallest_clip = _smallest_input(windows)
        self._initialise()

    def features(self, clips: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        """The trunk's output averaged over (T, H, W): what the linear layer reads.

        Raises:
            InputError: not (N, 3, T, H, W), or smaller than `smallest_clip`.
        """
        self._check(clips)
        return self.trunk(clips).mean(dim=(2, 3, 4))

    def forward(self, clips: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N K"]:
        """Class scores before the softmax; raises as `features` does."""
        return self.head(self.dropout(self.features(clips)))

    def _initialise(self) -> None:
        """Convolutions and the linear layer; norms initialise themselves."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def _check(self, clips: Tensor) -> None:
        if clips.ndim != 5 or clips.shape[1] != 3:
            raise InputError(f"ResNet3D: input is {tuple(clips.shape)}; it must be (N, 3, T, H, W)")
        if any(length < smallest for length, smallest in zip(clips.shape[2:], self.smallest_clip, strict=True)):
            came, rule = (" x ".join(map(str, size)) for size in (clips.shape[2:], self.smallest_clip))
            raise InputError(
                f"ResNet3D: a clip of {came} (T x H x W) is smaller than {rule}, which the strides and pools of this "
                "model need; give longer or larger clips, or reduce stem.stride, pool1 or pool2"
            )


def _per_stage(name: str, values: Sequence[int], depths: Sequence[int]) -> list[int]:
    if len(values) != len(depths) or any(value < 1 for value in (*values, *depths)):
        raise InputError(f"ResNet3D: {name}={list(values)} with depths={list(depths)}; give each a positive number per stage")
    return list(values)


def _temporal_kernels(kernels: int | Sequence[int | Sequence[int]], depths: Sequence[int]) -> list[list[int]]:
    """t of every block of every stage."""
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


def _check_keys(name: str, setting: Mapping[str, Any], known: set[str]) -> None:
    if unknown := set(setting) - known:
        raise InputError(f"ResNet3D: {name} has {sorted(unknown)}; it takes {', '.join(sorted(known))}")


def _pool(name: str, setting: Mapping[str, Any]) -> tuple[nn.MaxPool3d, tuple[Size, Size, Size]]:
    """The pool, and its window: kernel, stride, padding."""
    _check_keys(name, setting, {"kernel", "stride", "padding"})
    kernel = _size(f"{name}.kernel", setting.get("kernel"))
    stride = _size(f"{name}.stride", setting.get("stride"))
    padding = _size(f"{name}.padding", setting.get("padding", (0, 0, 0)), smallest=0)
    if any(2 * pad > length for pad, length in zip(padding, kernel, strict=True)):
        raise InputError(f"ResNet3D: {name}.padding={list(padding)}; it must be at most half of kernel={list(kernel)}")
    return nn.MaxPool3d(kernel, stride, padding), (kernel, stride, padding)


def _smallest_input(windows: Sequence[tuple[Size, Size, Size]]) -> Size:
    """The shortest T, H and W of which one position remains: length = (next - 1) * stride + kernel - 2 * padding."""
    smallest = [1, 1, 1]
    for kernel, stride, padding in reversed(windows):
        for axis in range(3):
            length = (smallest[axis] - 1) * stride[axis] + kernel[axis] - 2 * padding[axis]
            smallest[axis] = max(1, length)
    return (smallest[0], smallest[1], smallest[2])
