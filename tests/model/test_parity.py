"""The networks against pytorchvideo's and torchvision's own, with the same weights."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models.video import r2plus1d_18

Build = Callable[..., nn.Module]
Equal = Callable[..., None]


def pytorchvideo(name: str) -> nn.Module:
    hub = pytest.importorskip("pytorchvideo.models.hub", reason="pip install pytorchvideo")
    return getattr(hub, name)(model_num_class=6)


def in_pytorchvideo(name: str, has_pool2: bool) -> str:
    """Our parameter's name in pytorchvideo's ResNets, whose stages are numbered with the pool between them."""
    if name.startswith("head"):
        return name.replace("head", f"blocks.{5 + has_pool2}.proj")
    name = name.replace("trunk.conv1", "blocks.0.conv").replace("trunk.norm1", "blocks.0.norm")
    name = re.sub(r"trunk\.res(\d)\.", lambda m: f"blocks.{int(m[1]) - 1 + (has_pool2 and m[1] != '2')}.res_blocks.", name)
    name = name.replace("shortcut.0", "branch1_conv").replace("shortcut.1", "branch1_norm")
    for number, letter in ((1, "a"), (2, "b"), (3, "c")):
        name = re.sub(rf"\.(conv|norm){number}\.", rf".branch2.\1_{letter}.", name)
    return name.replace(".first.", ".conv_t.").replace("conv_b.second.", "conv_b.conv_xy.")


def in_torchvision(name: str) -> str:
    """Our parameter's name in torchvision's r2plus1d_18."""
    for ours, theirs in (
        ("trunk.conv1.first", "stem.0"),
        ("trunk.conv1.norm", "stem.1"),
        ("trunk.conv1.second", "stem.3"),
        ("trunk.norm1", "stem.4"),
        ("head", "fc"),
        ("shortcut", "downsample"),
    ):
        name = name.replace(ours, theirs)
    name = re.sub(r"trunk\.res(\d)", lambda m: f"layer{int(m[1]) - 1}", name)
    name = re.sub(r"\.norm(\d)\.", r".conv\1.1.", name)
    for ours, theirs in (("first", "0"), ("norm", "1"), ("second", "3")):
        name = re.sub(rf"\.conv(\d)\.{ours}\.", rf".conv\1.0.{theirs}.", name)
    return name


@pytest.mark.turns
@pytest.mark.parametrize(
    ("name", "theirs", "has_pool2", "clip"),
    [
        ("i3d_r50_slowfast", "i3d_r50", True, (8, 224, 224)),
        ("c2d_r50", "c2d_r50", True, (8, 224, 224)),
        ("slow_r50", "slow_r50", False, (8, 224, 224)),
        ("r2plus1d_50", "r2plus1d_r50", False, (16, 224, 224)),
    ],
)
def test_equals_pytorchvideo(
    build: Build, assert_equal: Equal, name: str, theirs: str, has_pool2: bool, clip: tuple[int, int, int]
) -> None:
    network = pytorchvideo(theirs)
    head = list(network.blocks)[-1]
    head.activation = None  # a softmax, in evaluation
    # Its pool is of one size; the mean over all positions is what it stands for.
    head.pool = nn.AdaptiveAvgPool3d(1)
    clips = torch.randn(2, 3, clip[0], 64, 64, generator=torch.Generator().manual_seed(1))
    ours = build(name, "batch_norm", num_classes=6, dropout=0.0)
    assert_equal(ours, network, lambda key: in_pytorchvideo(key, has_pool2), clips)


def test_r2plus1d_18_equals_torchvision(build: Build, assert_equal: Equal) -> None:
    clips = torch.randn(2, 3, 8, 48, 48, generator=torch.Generator().manual_seed(1))
    assert_equal(build("r2plus1d_18", "batch_norm", num_classes=6), r2plus1d_18(num_classes=6), in_torchvision, clips)
