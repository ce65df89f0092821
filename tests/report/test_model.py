"""What `inspect_network` counts against counts by hand and by another program."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from videogn.conv.weight_standardized import WeightStandardizedConv3d
from videogn.norm.batch_norm import BatchNorm
from videogn.norm.group_norm import GroupNorm
from videogn.report.model import inspect_network
from videogn.types import InputError


class Block(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 8, (3, 5, 5), stride=(1, 2, 2), padding=(1, 2, 2), bias=False)
        self.norm = norm
        self.unused = nn.Identity()
        self.pool = nn.MaxPool3d(2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.unused(self.norm(self.conv(x)))).mean((2, 3, 4)))


def test_counts_equal_those_by_hand() -> None:
    network = Block(GroupNorm(8, "relu", zero_init=True, num_groups=4))
    found = inspect_network(network, (3, 4, 12, 12), list(network.conv.parameters()))
    convolution = 8 * 4 * 6 * 6  # elements of its output
    assert found.parameters == 8 * 3 * 75 + 16 + 45
    assert found.decaying_parameters == 8 * 3 * 75
    assert found.flops == 2 * (convolution * 3 * 75 + 8 * 5)
    # Kept: the clip and the norm's input, for their convolution and norm; the norm's output, for ReLU and the pool; mean and
    # rstd of 4 groups; the pool's indices (int64); the head's input.
    pooled = 8 * 2 * 3 * 3
    assert found.bytes_kept == 4 * (3 * 4 * 12 * 12 + 2 * convolution + 2 * 4 + 8) + 8 * pooled

    conv, norm, pool, head = found.layers
    assert [layer.name for layer in found.layers] == ["conv", "norm", "pool", "head"]
    assert (conv.kind, conv.output, conv.parameters, conv.is_norm, conv.decays) == ("Conv3d", (8, 4, 6, 6), 1800, False, True)
    assert (norm.kind, norm.num_groups, norm.channels_per_group) == ("GroupNorm", 4, 2)
    assert (norm.activation, norm.is_fused, norm.starts_at_zero, norm.decays) == ("relu", True, True, False)
    assert (pool.output, pool.parameters, pool.decays) == ((8, 2, 3, 3), 0, None)
    assert head.output == (5,)


def test_a_batch_norm_has_no_groups_and_its_tail_follows() -> None:
    network = Block(BatchNorm(8, "relu"))
    norm = inspect_network(network, (3, 4, 12, 12), []).layers[1]
    assert (norm.is_norm, norm.num_groups, norm.channels_per_group, norm.is_fused, norm.starts_at_zero) == (
        True,
        None,
        None,
        False,
        False,
    )


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 3, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(self.conv(x))
        return (y * y.transpose(3, 4)).mean((2, 3, 4))


def test_a_shared_layer_and_a_view_count_once() -> None:
    found = inspect_network(Twice(), (3, 2, 4, 4), [])
    assert [(layer.name, layer.parameters) for layer in found.layers] == [("conv", 9), ("conv", 0)]
    # The clip and what both convolutions give; the view of the last is the same memory.
    assert found.bytes_kept == 4 * 3 * (3 * 2 * 4 * 4)


@pytest.mark.parametrize("num_frames", [8, 32])
def test_pytorchvideos_i3d_keeps_what_its_layers_read_back(num_frames: int) -> None:
    """Summed layer by layer: what a convolution, a batch norm, a ReLU or a pool reads back is one of these outputs."""
    resnet = pytest.importorskip("pytorchvideo.models.resnet", reason="pip install pytorchvideo")

    def build() -> nn.Module:
        return resnet.create_resnet(
            stem_conv_kernel_size=(5, 7, 7),
            stage1_pool=nn.MaxPool3d,
            stage_conv_a_kernel_size=(
                (3, 1, 1),
                [(3, 1, 1), (1, 1, 1)],
                [(3, 1, 1), (1, 1, 1)],
                [(1, 1, 1), (3, 1, 1)],
            ),
            head_pool_kernel_size=(num_frames // 2, 7, 7),
        )

    size = (3, num_frames, 224, 224)
    expected = 4 * math.prod(size)  # the clip, which the first convolution reads
    network = build().to("meta")
    for module in network.modules():
        # Of a pool its indices too, 8 bytes each; of dropout its mask, in fp32 outside CUDA, and what the linear layer reads.
        width = {nn.Conv3d: 4, nn.ReLU: 4, nn.MaxPool3d: 12, nn.Dropout: 8}.get(type(module))
        if width:

            def add(module: nn.Module, inputs: Any, output: torch.Tensor, width: int = width) -> None:
                nonlocal expected
                expected += width * output.numel()

            module.register_forward_hook(add)
    network(torch.empty(1, *size, device="meta"))
    assert inspect_network(build(), size, []).bytes_kept == expected


def test_weights_that_a_layer_derives_are_kept_once() -> None:
    network = nn.Sequential(WeightStandardizedConv3d(64, 64, 3, padding=1), nn.Flatten(), nn.Linear(64 * 8, 5))
    found = inspect_network(network, (64, 2, 2, 2), [])
    # The clip, which the convolution reads, and what it gives, which the linear layer reads.
    assert found.bytes_kept == 4 * (64 * 8 + 64 * 8)
    assert found.bytes_kept_once >= 4 * 64 * 64 * 27


def test_a_clip_that_is_too_small() -> None:
    with pytest.raises(InputError, match=r"Block: a clip of 3 x 1 x 2 x 2: .*; give another size"):
        inspect_network(Block(GroupNorm(8, num_groups=4)), (3, 1, 2, 2), [])
