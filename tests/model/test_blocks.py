"""Shortcuts and stochastic depth against their definitions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import unwrap

import pytest
import torch
from torch import nn
from torch.nn import functional

from videogn.conv.plain import PlainConv3d
from videogn.model.blocks import BasicBlock, Bottleneck3D, PaddedShortcut
from videogn.norm.group_norm import GroupNorm
from videogn.types import InputError

Build = Callable[..., nn.Module]
NORM = partial(GroupNorm, num_groups=4)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(4, 6, 6), (5, 7, 9)], ids=["even", "odd"])
def test_a_padded_shortcut_is_a_pool_of_one_and_zeros(size: tuple[int, int, int]) -> None:
    """As the authors of type A in 3D write it."""
    x = draw(2, 8, *size)
    pooled = functional.avg_pool3d(x, kernel_size=1, stride=2)
    expected = torch.cat([pooled, torch.zeros(2, 8, *pooled.shape[2:])], 1)
    y = PaddedShortcut(8, (2, 2, 2))(x)
    assert torch.equal(y, expected)
    block = BasicBlock(8, 16, NORM, PlainConv3d, temporal_stride=2, spatial_stride=2, shortcut="padding")
    assert torch.equal(block(x), functional.relu(expected))  # zero gamma: the block starts as its shortcut


def test_another_shortcut_is_an_error() -> None:
    with pytest.raises(InputError, match="shortcut=padding: a block ends in 8 channels less than it begins"):
        BasicBlock(16, 8, NORM, PlainConv3d, shortcut="padding")
    construct = unwrap(BasicBlock.__init__)  # below the hook, which refuses it first
    with pytest.raises(Exception, match="shortcut"):
        construct(BasicBlock.__new__(BasicBlock), 16, 8, NORM, PlainConv3d, shortcut="none")


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck3D])
def test_stochastic_depth_leaves_the_branch_out_clip_by_clip(block: type[BasicBlock]) -> None:
    width = 32 // block.expansion
    layer = block(32, width, NORM, PlainConv3d, zero_init=False, stochastic_depth=0.25)
    plain = block(32, width, NORM, PlainConv3d, zero_init=False)
    plain.load_state_dict(layer.state_dict())
    x = draw(64, 32, 1, 3, 3)
    with torch.no_grad():
        branch = plain.last_norm.normalize(plain.branch(x))
        left_out, kept = functional.relu(x), functional.relu(x + branch / 0.75)
        torch.manual_seed(0)
        y = layer(x)
        assert torch.equal(layer.eval()(x), plain.eval()(x))
    gone = (y == left_out).flatten(1).all(1)
    # Of 64 clips a quarter, give or take three standard deviations of 3.5.
    assert 16 - 10 <= int(gone.sum()) <= 16 + 10
    # Two convolutions and a norm, a few roundings of values up to ~10.
    torch.testing.assert_close(y[~gone], kept[~gone], atol=1e-4, rtol=0)


def test_the_probability_rises_evenly_to_the_last_block(build: Build) -> None:
    model = build("r3d_18", stochastic_depth=0.4)
    drops = [block.drop.p for stage in (2, 3, 4, 5) for block in getattr(model.trunk, f"res{stage}")]
    assert drops == pytest.approx([0.05 * number for number in range(1, 9)])
    assert build("r3d_18").trunk.res5[1].drop is None
    with pytest.raises(InputError, match=r"stochastic_depth=1\.0; give a probability"):
        build("r3d_18", stochastic_depth=1.0)
