"""Detectron's pickle against the network that it was made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from videogn.weight.detectron import Detectron

Fixture = Callable[..., nn.Module]


def in_detectron(name: str) -> str:
    name = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"res{int(m[1]) + 1}_{m[2]}_", name)
    name = re.sub(r"_conv(\d)\.weight", lambda m: f"_branch2{'abc'[int(m[1]) - 1]}_w", name)
    name = re.sub(r"_bn(\d)\.", lambda m: f"_branch2{'abc'[int(m[1]) - 1]}_gn_", name)
    name = name.replace("downsample.0.weight", "branch1_w").replace("downsample.1.", "branch1_gn_")
    name = name.replace("conv1.weight", "conv1_w").replace("bn1.", "conv1_gn_").replace("fc.weight", "pred_w")
    return name.replace("fc.bias", "pred_b").replace("gn_weight", "gn_s").replace("gn_bias", "gn_b")


def test_c2d_computes_on_our_pixels_what_theirs_does_on_its_own(
    build: Fixture,
    load: Callable,
    moved: Fixture,
    frame: Tensor,
    features_of_static_clip: Callable,
    assert_same: Callable,
    write_caffe2: Callable,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    theirs = moved(resnet50(norm_layer=partial(nn.GroupNorm, 32))).eval()
    blobs = {in_detectron(name): value for name, value in theirs.state_dict().items()}
    assert {"conv1_gn_s", "res2_0_branch1_gn_b", "res5_2_branch2c_gn_s", "res2_0_branch2a_w", "pred_b"} <= set(blobs)
    path = write_caffe2(tmp_path / "R-50-GN.pkl", blobs)
    ours = build("c2d_r50", "group_norm")
    report = load(Detectron(), path, ours)
    assert report.backbone_share == 1
    assert not report.unused
    done = {entry.name: entry.reason for entry in report.entries if entry.outcome != "skipped" and entry.reason}
    assert done == {"trunk.conv1.weight": "B, G, R turned to R, G, B, and times 57.375"}

    pixels = frame * 60  # their pixels, less the mean: B, G, R
    theirs.fc = nn.Identity()
    with torch.no_grad():
        expected = theirs.double()(pixels)
    # The kernel times 57.375 is rounded once.
    assert_same(features_of_static_clip(ours, pixels.flip(1) / 57.375), expected, roundings=1)
