"""SlowFast, X3D and CSN: pytorchvideo's builders give the topology, this project its norms, convolutions and initialisation."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from videogn.model.blocks import Layer, ResidualBlock
from videogn.model.network import Size, VideoNetwork
from videogn.model.pool import MaxPool3d
from videogn.types import InputError

with warnings.catch_warnings():
    # fvcore, below it, compiles a loss with torch.jit.script, which torch says is deprecated.
    warnings.simplefilter("ignore")
    from pytorchvideo.models.csn import create_csn
    from pytorchvideo.models.slowfast import create_slowfast
    from pytorchvideo.models.x3d import create_x3d

STAGES = ("res2", "res3", "res4", "res5")


class CSN(VideoNetwork):
    """(N, 3, T, H, W) -> (N, K), interaction-reduced: 1x1x1, depthwise 3x3x3, 1x1x1 in every bottleneck.

    Args:
        num_classes: K.
        norm, conv: build the layers, see the contracts of the rooms `norm` and `conv`.
        depth: 50, 101 or 152.
        dropout: probability, before the linear layer.
        zero_init: gamma of the last norm of every block starts at 0.
        stochastic_depth: as ResNet3D's.

    Source: Tran et al., Video Classification with Channel-Separated Convolutional Networks, ICCV 2019, arXiv:1904.02811.
    """

    def __init__(
        self,
        num_classes: int,
        norm: Layer,
        conv: Layer,
        *,
        depth: int,
        dropout: float = 0.0,
        zero_init: bool = True,
        stochastic_depth: float = 0.0,
    ) -> None:
        _check_depth(depth, (50, 101, 152))
        blocks: Any = create_csn(model_depth=depth, stem_pool=nn.MaxPool3d, norm=_Place).blocks
        adapter = _Adapter(norm, conv, zero_init, stochastic_depth, blocks[1:5])
        trunk = OrderedDict([*adapter.stem(blocks[0]), *zip(STAGES, map(adapter.stage, blocks[1:5]), strict=True)])
        super().__init__(nn.Sequential(trunk), blocks[-1].proj.in_features, num_classes, dropout, smallest_clip=(1, 1, 1))
        self.initialise()


class X3D(VideoNetwork):
    """(N, 3, T, H, W) -> (N, K): depthwise 3x3x3 convolutions, squeeze-and-excitation in every second block, SiLU.

    Between the mean over (T, H, W) and the linear layer there is a layer of 2048, `embedding`, with a ReLU. In training
    as in testing the scores are what stands before the softmax.

    Args:
        num_classes: K.
        norm, conv: as CSN's. Widths are no multiples of 32.
        depth_factor: 2.2 for XS, S and M, which differ by their clips alone; 5.0 for L.
        dropout, zero_init, stochastic_depth: as CSN's.

    Source: Feichtenhofer, X3D: Expanding Architectures for Efficient Video Recognition, CVPR 2020, arXiv:2004.04730.
    """

    def __init__(
        self,
        num_classes: int,
        norm: Layer,
        conv: Layer,
        *,
        depth_factor: float = 2.2,
        dropout: float = 0.5,
        zero_init: bool = True,
        stochastic_depth: float = 0.0,
    ) -> None:
        if not depth_factor > 0:
            raise InputError(f"X3D: depth_factor={depth_factor}; give a positive number")
        blocks: Any = create_x3d(depth_factor=depth_factor, norm=_Place).blocks
        adapter = _Adapter(norm, conv, zero_init, stochastic_depth, blocks[1:5])
        head = blocks[-1].pool
        stages = zip(STAGES, map(adapter.stage, blocks[1:5]), strict=True)
        last = [("conv5", adapter.conv(head.pre_conv)), ("norm5", adapter.norm(head.pre_norm, "relu"))]
        trunk = OrderedDict([*adapter.stem(blocks[0]), *stages, *last])
        embedding = head.post_conv
        super().__init__(nn.Sequential(trunk), embedding.out_channels, num_classes, dropout, smallest_clip=(1, 1, 1))
        self.embedding = nn.Linear(embedding.in_channels, embedding.out_channels, bias=False)
        self.initialise()
        nn.init.kaiming_normal_(self.embedding.weight, mode="fan_out", nonlinearity="relu")

    def features(self, clips: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        return functional.relu(self.embedding(super().features(clips)))

    def stages(self) -> dict[str, list[nn.Module]]:
        stages = super().stages()
        last = [*stages.pop("conv5"), *stages.pop("norm5"), self.embedding]
        head = stages.pop("head")
        return {**stages, "embedding": last, "head": head}


class SlowFast(VideoNetwork):
    """(N, 3, T, H, W) -> (N, K): a thin pathway over all frames, a wide one over every alpha-th, joined after each stage.

    The slow pathway reads ceil(T / alpha) frames spread evenly from the first to the last, as its authors' code spreads them
    where alpha divides T.

    Args:
        num_classes: K.
        norm, conv: as CSN's. The widths of the fast pathway (8, 16, ...) are no multiples of 32.
        depth: 50, 101 or 152.
        alpha: how many times more frames the fast pathway reads.
        fusion_kernel: temporal size of the convolutions from the fast to the slow pathway, odd.
        dropout, zero_init, stochastic_depth: as CSN's.

    Source: Feichtenhofer et al., SlowFast Networks for Video Recognition, ICCV 2019, arXiv:1812.03982.
    """

    def __init__(
        self,
        num_classes: int,
        norm: Layer,
        conv: Layer,
        *,
        depth: int,
        alpha: int = 4,
        fusion_kernel: int = 7,
        dropout: float = 0.5,
        zero_init: bool = True,
        stochastic_depth: float = 0.0,
    ) -> None:
        _check_depth(depth, (50, 101, 152))
        if alpha < 1 or fusion_kernel < 1 or fusion_kernel % 2 == 0:
            raise InputError(f"SlowFast: alpha={alpha}, fusion_kernel={fusion_kernel}; give a positive and an odd number")
        fusion: Any = {"slowfast_fusion_conv_kernel_size": (fusion_kernel, 1, 1), "slowfast_fusion_conv_stride": (alpha, 1, 1)}
        blocks: Any = create_slowfast(model_depth=depth, norm=_Place, **fusion).blocks
        trunk = SlowFastTrunk(blocks[:5], alpha, norm, conv, zero_init, stochastic_depth)
        super().__init__(trunk, blocks[-1].proj.in_features, num_classes, dropout, smallest_clip=(1, 1, 1))
        self.initialise()

    def features(self, clips: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        self._check(clips)
        return torch.cat([pathway.mean(dim=(2, 3, 4)) for pathway in self.trunk(clips)], 1)

    def stages(self) -> dict[str, list[nn.Module]]:
        stages: dict[str, list[nn.Module]] = {}
        for part in (self.trunk.slow, self.trunk.fast, self.trunk.lateral):
            for name, layer in part.named_children():  # pyright: ignore - each is a Sequential
                stages.setdefault(name, []).append(layer)
        return {**stages, "head": [self.head]}


class SlowFastTrunk(nn.Module):
    """(N, 3, T, H, W) -> the last stages of the slow and of the fast pathway."""

    def __init__(self, blocks: Any, alpha: int, norm: Layer, conv: Layer, zero_init: bool, stochastic_depth: float) -> None:
        super().__init__()
        self.alpha = alpha
        slow, fast = (
            _Adapter(norm, conv, zero_init, stochastic_depth, [block.multipathway_blocks[pathway] for block in blocks[1:]])
            for pathway in range(2)
        )
        for name, adapter, pathway in (("slow", slow, 0), ("fast", fast, 1)):
            parts = [block.multipathway_blocks[pathway] for block in blocks]
            stages: list[tuple[str, nn.Module]] = [("stem", nn.Sequential(OrderedDict(adapter.stem(parts[0]))))]
            stages += zip(STAGES, map(adapter.stage, parts[1:]), strict=True)
            setattr(self, name, nn.Sequential(OrderedDict(stages)))
        laterals = [(stage, block.multipathway_fusion) for stage, block in zip(("stem", *STAGES[:-1]), blocks, strict=False)]
        self.lateral = nn.Sequential(
            OrderedDict(
                (stage, nn.Sequential(slow.conv(fusion.conv_fast_to_slow), slow.norm(fusion.norm, "relu")))
                for stage, fusion in laterals
            )
        )

    def forward(self, clips: Float[Tensor, "N 3 T H W"]) -> tuple[Float[Tensor, "N D T1 H2 W2"], Float[Tensor, "N E T2 H2 W2"]]:
        slow, fast = clips.index_select(2, slow_frames(clips.shape[2], self.alpha, clips.device)), clips
        laterals = [*self.lateral, None]
        pathways: Any = (self.slow, self.fast)
        for slow_stage, fast_stage, lateral in zip(*pathways, laterals, strict=True):
            slow, fast = slow_stage(slow), fast_stage(fast)
            if lateral is not None:
                slow = torch.cat([slow, lateral(fast)], 1)
        return slow, fast


def slow_frames(length: int, alpha: int, device: torch.device) -> Int[Tensor, " T"]:
    """Indices of ceil(length / alpha) frames: floor(i * (length - 1) / (count - 1)), in whole numbers, alike everywhere."""
    count = -(-length // alpha)
    return torch.arange(count, device=device) * (length - 1) // max(count - 1, 1)


class AdaptedBottleneck(ResidualBlock):
    """A bottleneck of pytorchvideo with this project's layers, under the names of Bottleneck.

    With `excite` the second norm is followed by squeeze-and-excitation and a SiLU, which then cannot be fused.
    """

    def __init__(self, block: Any, adapter: _Adapter, stochastic_depth: float) -> None:
        branch = block.branch2
        shortcut: nn.Module = nn.Identity()
        if block.branch1_conv is not None:
            layers = [adapter.conv(block.branch1_conv)]
            if block.branch1_norm is not None:
                layers.append(adapter.norm(block.branch1_norm))
            shortcut = nn.Sequential(*layers)
        super().__init__(shortcut, stochastic_depth)
        place, excite = branch.norm_b if isinstance(branch.norm_b, nn.Sequential) else (branch.norm_b, None)
        self.conv1 = adapter.conv(branch.conv_a)
        self.norm1 = adapter.norm(branch.norm_a, "relu")
        self.conv2 = adapter.conv(branch.conv_b)
        if isinstance(excite, nn.Identity) or excite is None:
            self.excite = None
            self.norm2 = adapter.norm(place, "relu" if isinstance(branch.act_b, nn.ReLU) else "silu")
        else:
            self.norm2 = adapter.norm(place)
            self.excite = excite
        self.conv3 = adapter.conv(branch.conv_c)
        self.norm3 = adapter.norm(branch.norm_c, "relu", zero_init=adapter.zero_init)

    @property
    def last_norm(self) -> Any:
        return self.norm3

    def branch(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T2 H2 W2"]:
        x = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return self.conv3(x if self.excite is None else functional.silu(self.excite(x)))


class _Place(nn.Module):
    """Where pytorchvideo's builders put a norm, and for how many channels."""

    def __init__(self, num_features: int, eps: float = 0.0, momentum: float = 0.0) -> None:
        super().__init__()
        self.channels = int(num_features)


class _Adapter:
    """Makes this project's layers of pytorchvideo's; stochastic depth rises over the blocks of `stages`."""

    def __init__(self, norm: Layer, conv: Layer, zero_init: bool, stochastic_depth: float, stages: Any) -> None:
        self._norm = norm
        self._conv = conv
        self.zero_init = zero_init
        num_blocks = sum(len(stage.res_blocks) for stage in stages)
        self._depths = iter([stochastic_depth * number / num_blocks for number in range(1, num_blocks + 1)])

    def norm(self, place: Any, activation: str | None = None, zero_init: bool = False) -> nn.Module:
        return self._norm(place.channels, activation=activation, zero_init=zero_init)

    def conv(self, conv: Any) -> nn.Module:
        groups = {"groups": conv.groups} if conv.groups > 1 else {}
        kernel, stride, padding = (_triple(size) for size in (conv.kernel_size, conv.stride, conv.padding))
        return self._conv(conv.in_channels, conv.out_channels, kernel, stride=stride, padding=padding, **groups)

    def pool(self, pool: Any) -> MaxPool3d:
        kernel, stride, padding = (_triple(size) for size in (pool.kernel_size, pool.stride, pool.padding))
        return MaxPool3d(kernel, stride, padding)

    def stem(self, stem: Any) -> list[tuple[str, nn.Module]]:
        """conv1, norm1 and, where there is one, pool1."""
        conv = stem.conv
        first = self.conv(conv) if isinstance(conv, nn.Conv3d) else nn.Sequential(self.conv(conv.conv_t), self.conv(conv.conv_xy))
        layers = [("conv1", first), ("norm1", self.norm(stem.norm, "relu"))]
        return layers if stem.pool is None else [*layers, ("pool1", self.pool(stem.pool))]

    def stage(self, stage: Any) -> nn.Sequential:
        return nn.Sequential(*(AdaptedBottleneck(block, self, next(self._depths)) for block in stage.res_blocks))


def _triple(sizes: Any) -> Size:
    """Plain numbers: some are numpy's, for which torch.compile draws symbols of unknown value."""
    t, h, w = (int(size) for size in ((sizes,) * 3 if isinstance(sizes, int) else sizes))
    return t, h, w


def _check_depth(depth: int, known: tuple[int, ...]) -> None:
    if depth not in known:
        raise InputError(f"depth={depth}; use one of {', '.join(map(str, known))}")
