"""PySlowFast's .pyth and Caffe2 files, made of pytorchvideo's networks of the same architecture."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from videogn.weight.slowfast import SlowFast

Build = Callable[..., nn.Module]
MODELS = {
    "slow_r50": "slow_r50",
    "c2d_r50": "c2d_r50",
    "i3d_r50": "i3d_r50_slowfast",
    "slowfast_r50": "slowfast_r50",
    "x3d_s": "x3d_s",
}
# Blocks of pytorchvideo's lists that are stages, res2 first; I3D and C2D have a pool between the first two.
STAGES = {"slow_r50": [1, 2, 3, 4], "c2d_r50": [1, 3, 4, 5], "i3d_r50": [1, 3, 4, 5], "x3d_s": [1, 2, 3, 4]}


def in_slowfast(name: str, model: str) -> str:
    """Name in PySlowFast of a tensor of pytorchvideo's."""
    block, _, rest = name.removeprefix("blocks.").partition(".")
    if model == "slowfast_r50":
        if block == "6":
            return rest.replace("proj", "head.projection")
        stage = int(block) + 1
        if rest.startswith("multipathway_fusion."):
            rest = rest.removeprefix("multipathway_fusion.")
            return f"s{stage}_fuse." + rest.replace("conv_fast_to_slow", "conv_f2s").replace("norm.", "bn.")
        pathway, _, rest = rest.removeprefix("multipathway_blocks.").partition(".")
    else:
        pathway = "0"
        if block == str(STAGES[model][-1] + 1):
            for theirs, new in (
                ("pool.pre_conv.", "conv_5."),
                ("pool.pre_norm.", "conv_5_bn."),
                ("pool.post_conv.", "lin_5."),
                ("proj.", "projection."),
            ):
                rest = rest.replace(theirs, new)
            return f"head.{rest}"
        stage = 1 if block == "0" else STAGES[model].index(int(block)) + 2
    if stage == 1:
        # X3D: the convolution over space is conv_t in pytorchvideo, that over time conv_xy.
        rest = rest.replace("conv.conv_t.", "conv_xy.").replace("conv.conv_xy.", "conv.").replace("norm.", "bn.")
        return f"s1.pathway{pathway}_stem.{rest}"
    number, _, rest = rest.removeprefix("res_blocks.").partition(".")
    rest = rest.replace("branch1_conv.", "branch1.").replace("branch1_norm.", "branch1_bn.")
    rest = rest.replace("norm_b.0.", "norm_b.").replace("norm_b.1.block.0.", "se.fc1.").replace("norm_b.1.block.2.", "se.fc2.")
    rest = re.sub(r"conv_([abc])\.", r"\1.", rest)
    return f"s{stage}.pathway{pathway}_res{number}." + re.sub(r"norm_([abc])\.", r"\1_bn.", rest)


def renamed(state: Mapping[str, Tensor], model: str) -> dict[str, Tensor]:
    return {in_slowfast(name, model): value for name, value in state.items()}


def write_pyth(state: Mapping[str, Tensor], path: Path) -> None:
    torch.save({"epoch": 195, "model_state": dict(state), "optimizer_state": {}, "cfg": "TRAIN:\n  ENABLE: true\n"}, path)


@pytest.mark.parametrize("name", MODELS)
def test_scores_of_a_pyth(
    build: Build, load: Callable, published: Callable, scores: Callable, assert_same: Callable, tmp_path: Path, name: str
) -> None:
    state, clip, expected = published(name)
    theirs = renamed(state, name)
    known = {"s1.pathway0_stem.bn.weight", "s3.pathway0_res0.branch1_bn.weight", "s3.pathway0_res0.branch2.a_bn.running_var"}
    known |= {"slowfast_r50": {"s1_fuse.bn.bias", "s5.pathway1_res2.branch2.c.weight"}}.get(name, set())
    known |= {"x3d_s": {"s2.pathway0_res0.branch2.se.fc1.weight", "head.lin_5.weight", "head.conv_5_bn.bias"}}.get(name, set())
    assert known <= set(theirs)
    path = tmp_path / f"{name}.pyth"
    write_pyth(theirs, path)
    ours = build(MODELS[name], "batch_norm", num_classes=6)
    report = load(SlowFast(), path, ours)
    assert not report.unused
    assert {entry.outcome for entry in report.entries} == {"renamed"}
    assert_same(scores(ours, clip), expected)


def in_caffe2(name: str) -> str:
    """Name among Caffe2's blobs of a tensor of PySlowFast's."""
    name = name.replace("head.projection.", "pred_")
    for pathway, prefix in enumerate(("", "t_")):
        name = name.replace(f"s1.pathway{pathway}_stem.conv.", f"{prefix}conv1_")
        name = name.replace(f"s1.pathway{pathway}_stem.bn.", f"{prefix}res_conv1_bn_")
        name = re.sub(rf"^s(\d)\.pathway{pathway}_res(\d+)\.", rf"{prefix}res\1_\2_", name)
    name = name.replace("s1_fuse.conv_f2s.", "t_pool1_subsample_").replace("s1_fuse.bn.", "t_pool1_subsample_bn_")
    last = {"2": "2", "3": "3", "4": "5"}
    name = re.sub(r"^s(\d)_fuse\.conv_f2s\.", lambda m: f"t_res{m[1]}_{last[m[1]]}_branch2c_bn_subsample_", name)
    name = re.sub(r"^s(\d)_fuse\.bn\.", lambda m: f"t_res{m[1]}_{last[m[1]]}_branch2c_bn_subsample_bn_", name)
    name = re.sub(r"branch2\.([abc])(_bn)?\.", r"branch2\1\2_", name).replace("branch1_bn.", "branch1_bn_")
    name = name.replace("branch1.", "branch1_")
    if "bn_" in name or name.startswith("pred_"):
        name = re.sub(r"bias$", "b", re.sub(r"bn_weight$", "bn_s", name))
    return name.replace("running_mean", "rm").replace("running_var", "riv").replace("weight", "w")


def caffe2_blobs(state: Mapping[str, Tensor]) -> dict[str, Any]:
    blobs: dict[str, Any] = {in_caffe2(key): value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    blobs |= {f"{key}_momentum": value for key, value in list(blobs.items()) if key.endswith("_w")}
    return {**blobs, "lr": np.zeros((), np.float32), "model_iter": 7}


@pytest.mark.turns
@pytest.mark.parametrize("name", ["i3d_r50", "slowfast_r50"])
def test_scores_of_a_caffe2_pickle(
    build: Build,
    load: Callable,
    published: Callable,
    scores: Callable,
    assert_same: Callable,
    write_caffe2: Callable,
    tmp_path: Path,
    name: str,
) -> None:
    state, clip, expected = published(name)
    blobs = caffe2_blobs(renamed(state, name))
    known = {"conv1_w", "res_conv1_bn_riv", "res2_0_branch2a_w", "res2_0_branch1_bn_s", "res5_2_branch2c_bn_rm", "pred_b"}
    if name == "slowfast_r50":
        known |= {"t_conv1_w", "t_res_conv1_bn_s", "t_pool1_subsample_w", "t_pool1_subsample_bn_s", "t_res3_1_branch2b_bn_b"}
        known |= {"t_res2_2_branch2c_bn_subsample_w", "t_res4_5_branch2c_bn_subsample_bn_riv"}
    assert known <= set(blobs)
    path = write_caffe2(tmp_path / f"{name}.pkl", blobs)
    ours = build(MODELS[name], "batch_norm", num_classes=6)
    report = load(SlowFast(), path, ours)
    assert not report.unused
    assert {entry.outcome for entry in report.entries} == {"renamed"}
    assert_same(scores(ours, clip), expected)


def test_its_model_of_images_is_inflated(
    build: Build,
    load: Callable,
    moved: Build,
    frame: Tensor,
    features_of_static_clip: Callable,
    assert_same: Callable,
    tmp_path: Path,
) -> None:
    """R50_IN1K.pyth has kernels of two dimensions."""
    torch.manual_seed(0)
    theirs = moved(resnet50()).eval()
    state = {}
    for name, value in theirs.state_dict().items():
        name = name.replace("fc.", "head.projection.")
        name = re.sub(r"^conv1\.", "s1.pathway0_stem.conv.", re.sub(r"^bn1\.", "s1.pathway0_stem.bn.", name))
        name = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"s{int(m[1]) + 1}.pathway0_res{m[2]}.", name)
        name = re.sub(r"\.conv(\d)\.", lambda m: f".branch2.{'_abc'[int(m[1])]}.", name)
        name = re.sub(r"\.bn(\d)\.", lambda m: f".branch2.{'_abc'[int(m[1])]}_bn.", name)
        state[name.replace("downsample.0.", "branch1.").replace("downsample.1.", "branch1_bn.")] = value
    path = tmp_path / "R50_IN1K.pyth"
    write_pyth(state, path)
    theirs.fc = nn.Identity()
    with torch.no_grad():
        expected = theirs.double()(frame)
    ours = build("c2d_r50", "batch_norm")
    report = load(SlowFast(), path, ours)
    assert {e.reason for e in report.entries if e.outcome == "skipped"} == {"1000 classes of images in the file: it starts anew"}
    assert_same(features_of_static_clip(ours, frame), expected)


def test_another_layout_is_refused(shallow: Build, refuse: Callable, tmp_path: Path) -> None:
    path = tmp_path / "other.pyth"
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, path)
    assert "has no tensor under s1.; give a checkpoint of PySlowFast" in refuse(SlowFast(), path, shallow())
