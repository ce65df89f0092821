"""Both files of GroupNorm-reproduce against torchvision's ResNet-50 with group norm."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from videogn.weight.groupnorm_reproduce import GroupNormReproduce

Fixture = Callable[..., nn.Module]


@pytest.fixture(scope="module")
def network(moved: Fixture) -> nn.Module:
    torch.manual_seed(0)
    return moved(resnet50(norm_layer=partial(nn.GroupNorm, 32))).eval()


@pytest.fixture(scope="module")
def expected(network: nn.Module, frame: Tensor) -> Tensor:
    state = {name: value.clone() for name, value in network.state_dict().items()}
    double = resnet50(norm_layer=partial(nn.GroupNorm, 32)).double().eval()
    double.load_state_dict(state)
    double.fc = nn.Identity()  # pyright: ignore
    with torch.no_grad():
        return double(frame)


def in_tensorpack(name: str) -> str:
    name = re.sub(r"^conv1\.weight", "conv0/W", name)
    name = re.sub(r"^bn1\.", "conv0/gn/", name)
    name = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"group{int(m[1]) - 1}/block{m[2]}/", name)
    name = re.sub(r"conv(\d)\.weight", r"conv\1/W", name)
    name = re.sub(r"bn(\d)\.", r"conv\1/gn/", name)
    name = name.replace("downsample.0.weight", "convshortcut/W").replace("downsample.1.", "convshortcut/gn/")
    name = name.replace("fc.weight", "linear/W").replace("fc.bias", "linear/b")
    return name.replace("gn/weight", "gn/gamma").replace("gn/bias", "gn/beta")


def write_pth(network: nn.Module, path: Path) -> None:
    state = {"module." + re.sub(r"\bbn(\d)", r"gn\1", name): value for name, value in network.state_dict().items()}
    assert {"module.gn1.weight", "module.layer1.0.gn1.weight", "module.layer1.0.downsample.1.weight"} <= set(state)
    torch.save({"state_dict": state}, path)


def write_npz(network: nn.Module, path: Path) -> None:
    arrays = {}
    for name, value in network.state_dict().items():
        if name == "conv1.weight":
            value = value.flip(1)  # B, G, R
        if value.ndim == 4:
            value = value.permute(2, 3, 1, 0)  # H, W, C, D
        arrays[in_tensorpack(name)] = (value.T if name == "fc.weight" else value).contiguous().numpy()
    assert {"group0/block0/convshortcut/gn/gamma", "group3/block2/conv3/gn/beta", "linear/W", "conv0/gn/beta"} <= set(arrays)
    np.savez(path, **arrays)


@pytest.mark.parametrize(("suffix", "write"), [(".pth", write_pth), (".npz", write_npz)])
def test_c2d_computes_what_theirs_does(
    build: Fixture,
    load: Callable,
    network: nn.Module,
    expected: Tensor,
    frame: Tensor,
    features_of_static_clip: Callable,
    assert_same: Callable,
    tmp_path: Path,
    suffix: str,
    write: Callable[[nn.Module, Path], None],
) -> None:
    path = tmp_path / f"ImageNet-ResNet50-GN{suffix}"
    write(network, path)
    ours = build("c2d_r50", "group_norm")
    report = load(GroupNormReproduce(), path, ours)
    assert report.backbone_share == 1
    assert not report.unused
    assert {e.source for e in report.entries if e.outcome == "skipped"} == (
        {"linear/W", "linear/b"} if suffix == ".npz" else {"fc.weight", "fc.bias"}
    )
    assert_same(features_of_static_clip(ours, frame), expected)


@pytest.mark.parametrize("ndim", [1, 2, 3, 5])
def test_arrays_of_another_number_of_axes(refuse: Callable, shallow: Callable, tmp_path: Path, ndim: int) -> None:
    path, array = tmp_path / "file.npz", np.zeros((3,) * ndim, np.float32)
    np.savez(path, **{"conv0/W": array, "linear/W": array})  # pyright: ignore
    shape = " x ".join("3" * ndim)
    assert f"(trunk.conv1.weight: its shape {shape} does not fit 64 x 3 x 1 x 7 x 7)" in refuse(
        GroupNormReproduce(), path, shallow()
    )
