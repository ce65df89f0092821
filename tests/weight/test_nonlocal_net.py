"""video-nonlocal-net's pickles, for the networks of the paper."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from videogn.weight.nonlocal_net import NonlocalNet

Build = Callable[..., nn.Module]


@pytest.fixture(scope="module")
def network(build: Build, moved: Build) -> nn.Module:
    """The paper's I3D, whose topology tests/model compares with what is published; its blobs are named by hand below."""
    torch.manual_seed(0)
    return moved(build("i3d_r50", "batch_norm", num_classes=6))


def blobs(network: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {"model_iter": np.array(400000), "lr": np.array(0.0001, np.float32)}
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        name = re.sub(r"^trunk\.res(\d)\.(\d+)\.", r"res\1_\2_", name)
        name = re.sub(r"_conv(\d)\.", lambda m: f"_branch2{'_abc'[int(m[1])]}_", name)
        name = re.sub(r"_norm(\d)\.", lambda m: f"_branch2{'_abc'[int(m[1])]}_bn_", name)
        name = name.replace("shortcut.0.", "branch1_").replace("shortcut.1.", "branch1_bn_")
        name = name.replace("trunk.conv1.", "conv1_").replace("trunk.norm1.", "res_conv1_bn_").replace("head.", "pred_")
        name = name.replace("bn_weight", "bn_s").replace("running_mean", "rm").replace("running_var", "riv")
        name = name.replace("weight", "w").replace("bias", "b")
        found[name] = value.numpy()
        if name.endswith("_w"):
            found[f"{name}_momentum"] = value.numpy()
    return found


def test_every_blob_finds_its_place(
    build: Build, load: Callable, network: nn.Module, write_caffe2: Callable, tmp_path: Path
) -> None:
    theirs = blobs(network)
    # Shapes of lib/models/resnet_video.py.
    assert theirs["conv1_w"].shape == (64, 3, 5, 7, 7)
    assert theirs["res2_0_branch2a_w"].shape == (64, 64, 3, 1, 1)
    assert {"res_conv1_bn_riv", "res2_0_branch1_bn_s", "res4_5_branch2c_bn_rm", "pred_w", "pred_b"} <= set(theirs)
    path = write_caffe2(tmp_path / "i3d_baseline_32x2_IN_pretrain_400k.pkl", theirs)
    ours = build("i3d_r50", "batch_norm", num_classes=6)
    report = load(NonlocalNet(), path, ours)
    assert not report.unused
    assert not report.notes
    assert {entry.outcome for entry in report.entries} == {"renamed"}
    expected = network.state_dict()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_nonlocal_blocks_are_left_out_and_told(
    build: Build, load: Callable, network: nn.Module, write_caffe2: Callable, tmp_path: Path
) -> None:
    theirs = blobs(network)
    extra = {
        "nonlocal_conv3_1_theta_w": np.ones((256, 512, 1, 1, 1), np.float32),
        "nonlocal_conv3_1_theta_b": np.ones(256, np.float32),
        "nonlocal_conv3_1_bn_s": np.ones(512, np.float32),
        "nonlocal_conv3_1_bn_riv": np.ones(512, np.float32),
    }
    path = write_caffe2(tmp_path / "i3d_nonlocal.pkl", {**theirs, **extra})
    report = load(NonlocalNet(), path, build("i3d_r50", "batch_norm", num_classes=6))
    assert report.notes == ["warning: the file's non-local blocks were left out: the model does not compute what that one does"]
    assert dict(report.unused) == dict.fromkeys(extra, "with no place in this model")
    assert report.backbone_share == 1
