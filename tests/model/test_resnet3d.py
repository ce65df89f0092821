"""ResNet3D against the paper's table and against torchvision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import unwrap
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.video import r3d_18

from videogn.conv.plain import PlainConv3d
from videogn.model.resnet3d import ResNet3D
from videogn.norm.group_norm import GroupNorm
from videogn.types import InputError

Build = Callable[..., nn.Module]


def stages(model: nn.Module, size: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """(C, T, H, W) after each layer of the trunk, on the meta device."""
    shapes, x = {}, torch.empty(1, 3, *size, device="meta")
    for name, layer in model.to("meta").trunk.named_children():
        x = layer(x)
        shapes[name] = tuple(x.shape[1:])
    return shapes


def test_i3d_r50_is_the_table_of_the_paper(build: Build) -> None:
    """Wang et al. 2018, table 1: C x T x H x W after each stage."""
    with torch.device("meta"):
        model = build("i3d_r50", num_classes=400)
    table = {
        "conv1": (64, 16, 112, 112),
        "pool1": (64, 8, 55, 55),
        "res2": (256, 8, 55, 55),
        "pool2": (256, 4, 55, 55),
        "res3": (512, 4, 28, 28),
        "res4": (1024, 4, 14, 14),
        "res5": (2048, 4, 7, 7),
    }
    shapes = stages(model, (32, 224, 224))
    del shapes["norm1"]
    assert shapes == table
    assert [shape[1] for shape in stages(model, (64, 224, 224)).values()] == [32, 32, 16, 16, 8, 8, 8, 8]
    assert model.dropout.p == 0.5
    assert model.head.weight.shape == (400, 2048)

    trunk = model.trunk
    assert (trunk.conv1.kernel_size, trunk.conv1.padding) == ((5, 7, 7), (2, 3, 3))
    inflated = {
        name: [block.conv1.kernel_size[0] == 3 for block in getattr(trunk, name)] for name in ("res2", "res3", "res4", "res5")
    }
    assert inflated == {
        "res2": [True, True, True],
        "res3": [True, False, True, False],
        "res4": [True, False, True, False, True, False],
        "res5": [False, True, False],
    }
    first = trunk.res3[0]
    assert (first.conv1.stride, first.conv2.stride) == ((1, 1, 1), (1, 2, 2))  # not on the 1x1
    assert (first.conv1.padding, first.conv2.kernel_size) == ((1, 0, 0), (1, 3, 3))


def test_i3d_r50_counts_as_the_2d_network_plus_its_inflation(build: Build) -> None:
    """ResNet-50's 25,557,032 parameters; conv1 is 5 times as deep, and 9 first convolutions are 3 times."""
    with torch.device("meta"):
        model = build("i3d_r50", num_classes=1000)
    widths_of_inflated = [(64, 64), (256, 64), (256, 64), (256, 128), (512, 128)]
    widths_of_inflated += [(512, 256), (1024, 256), (1024, 256), (2048, 512)]
    inflation = 4 * 3 * 64 * 49 + sum(2 * before * after for before, after in widths_of_inflated)
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_557_032 + inflation


def test_initialisation(build: Build) -> None:
    torch.manual_seed(0)
    model = build("r3d_18", num_classes=400)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d):
            fan_out = module.out_channels * module.weight[0, 0].numel()
            # The spread of n draws is off by 1 / sqrt(2n); five of those.
            expected = (2 / fan_out) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=5 / (2 * module.weight.numel()) ** 0.5)
        elif isinstance(module, nn.GroupNorm):
            last_of_block = name.endswith("norm2")
            assert bool((module.weight == (0 if last_of_block else 1)).all()), name
            assert not module.bias.any()
    assert model.head.weight.std().item() == pytest.approx(0.01, rel=5 / (2 * model.head.weight.numel()) ** 0.5)
    assert not model.head.bias.any()
    assert bool(build("r3d_18", zero_init=False).trunk.res2[0].norm2.weight.all())


def torchvision_name(name: str) -> str:
    """Our parameter's name in torchvision's r3d_18."""
    for ours, theirs in (("trunk.conv1", "stem.0"), ("trunk.norm1", "stem.1"), ("head", "fc")):
        name = name.replace(ours, theirs)
    for stage in range(2, 6):
        name = name.replace(f"trunk.res{stage}", f"layer{stage - 1}")
    for layer in (1, 2):
        name = name.replace(f".conv{layer}.", f".conv{layer}.0.").replace(f".norm{layer}.", f".conv{layer}.1.")
    return name.replace("shortcut", "downsample")


def test_r3d_18_equals_torchvision(build: Build) -> None:
    torch.manual_seed(0)
    theirs = r3d_18(num_classes=6)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm3d):  # away from 1, 0, where a mistake would hide
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    ours = build("r3d_18", "batch_norm", num_classes=6)
    weights = theirs.state_dict()
    ours.load_state_dict({name: weights.pop(torchvision_name(name)) for name in ours.state_dict()})
    assert not weights

    clips = torch.randn(2, 3, 8, 48, 48)
    for training in (True, True, False):  # the third time with running statistics that two steps have moved
        expected, scores = theirs.train(training)(clips), ours.train(training)(clips)
        # The same convolutions and norms in the same order; x + shortcut and shortcut + x round alike.
        torch.testing.assert_close(scores, expected, atol=0, rtol=1e-6)
    for ours_name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[torchvision_name(ours_name)], atol=0, rtol=1e-6)


def test_tiny_serves_the_default_groups_and_trains_fast_enough(build: Build) -> None:
    """Every width is a multiple of 32; 150 million multiply-adds a clip are about 120 clips/s on two cores."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = build("resnet3d_tiny", num_classes=10)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 8, 80, 80))
    assert counter.get_total_flops() / 2 < 150e6
    assert all(module.num_groups == 32 for module in model.modules() if isinstance(module, GroupNorm))


@pytest.mark.parametrize("axis", range(3))
def test_smallest_clip_is_exactly_the_smallest(build: Build, axis: int) -> None:
    model = build("i3d_r50").to("meta")
    assert model.smallest_clip == (7, 5, 5)
    model(torch.empty(1, 3, *model.smallest_clip, device="meta"))
    size = list(model.smallest_clip)
    size[axis] -= 1
    with pytest.raises(InputError, match=r"is smaller than 7 x 5 x 5, which the strides and pools"):
        model(torch.empty(1, 3, *size, device="meta"))
    with pytest.raises(RuntimeError):  # what torch says, were it not for the check
        model.trunk(torch.empty(1, 3, *size, device="meta"))


def test_input_of_another_order_is_named(build: Build) -> None:
    model = build("resnet3d_tiny").to("meta")
    for shape in ((2, 8, 3, 48, 48), (3, 8, 48, 48)):  # frames first; no batch
        with pytest.raises(InputError, match=r"ResNet3D: input is \(.*\); it must be \(N, 3, T, H, W\)"):
            model._check(torch.empty(shape, device="meta"))  # below the hook, which refuses these shapes first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": "wide"}, "block='wide'; use one of basic, bottleneck"),
        ({"dropout": 1.0}, "dropout=1.0; give a probability"),
        ({"widths": [32, 64]}, r"widths=\[32, 64\] with depths=\[1, 1, 1\]; give each a positive number per stage"),
        ({"spatial_strides": [1, 0, 2]}, r"spatial_strides=\[1, 0, 2\]"),
        ({"temporal_kernels": [3, 3]}, r"temporal_kernels=\[\[3\], \[3\]\] with depths"),
        ({"temporal_kernels": [[3, 1], 3, 3]}, r"temporal_kernels=\[\[3, 1\], \[3\], \[3\]\] with depths"),
        ({"temporal_kernels": 2}, r"temporal_kernels=\[\[2\], \[2\], \[2\]\]; each must be odd"),
        ({"stem": {"kernel": [3, 4, 4]}}, r"stem.kernel=\[3, 4, 4\]; each length must be odd"),
        ({"stem": {"stride": [1, 2]}}, r"stem.stride=\[1, 2\]; give \[T, H, W\], whole numbers from 1 on"),
        ({"stem": {"channels": 0}}, "stem.channels=0"),
        ({"stem": {"width": 16}}, r"stem has \['width'\]; it takes channels, kernel, stride"),
        ({"pool1": {"kernel": [1, 3, 3]}}, r"pool1.stride=None; give \[T, H, W\]"),
        (
            {"pool2": {"kernel": [1, 3, 3], "stride": [1, 2, 2], "padding": [0, 2, 2]}},
            r"pool2.padding=\[0, 2, 2\]; it must be at most half of kernel=\[1, 3, 3\]",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_errors_name_the_setting(change: dict[str, Any], message: str) -> None:
    setting: dict[str, Any] = {
        "block": "basic",
        "stem": {"channels": 32, "kernel": [3, 5, 5], "stride": [1, 2, 2]},
        "depths": [1, 1, 1],
        "widths": [32, 64, 128],
        "temporal_kernels": 3,
        "temporal_strides": [1, 2, 2],
        "spatial_strides": [1, 2, 2],
    }
    if "stem" in change:
        change = {"stem": setting["stem"] | change["stem"]}
    construct = unwrap(ResNet3D.__init__)  # below the hook, which refuses another block first
    with pytest.raises(InputError, match="ResNet3D: " + message):
        construct(ResNet3D.__new__(ResNet3D), 5, partial(GroupNorm, num_groups=32), PlainConv3d, **(setting | change))
