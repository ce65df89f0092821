"""timm's files against timm's networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from videogn.weight.timm import Timm

timm = pytest.importorskip("timm", reason="pip install timm")
Fixture = Callable[..., nn.Module]


@pytest.mark.parametrize(
    ("name", "norm", "nested"), [("resnet50", "batch_norm", False), ("resnet50_gn", "group_norm", True)], ids=str
)
def test_c2d_computes_what_theirs_does(
    build: Fixture,
    load: Callable,
    moved: Fixture,
    frame: Tensor,
    features_of_static_clip: Callable,
    assert_same: Callable,
    tmp_path: Path,
    name: str,
    norm: str,
    nested: bool,
) -> None:
    torch.manual_seed(0)
    theirs = moved(timm.create_model(name)).eval()
    path = tmp_path / "timm.pth"
    torch.save({"state_dict": theirs.state_dict(), "epoch": 3} if nested else theirs.state_dict(), path)
    ours = build("c2d_r50", norm)
    report = load(Timm(), path, ours)
    assert report.backbone_share == 1
    assert not report.notes
    with torch.no_grad():
        theirs = theirs.double()
        expected = theirs.forward_head(theirs.forward_features(frame), pre_logits=True)
    assert_same(features_of_static_clip(ours, frame), expected)


@pytest.fixture(scope="module")
def bit(moved: Fixture, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    torch.manual_seed(0)
    state = moved(timm.create_model("resnetv2_50x1_bit")).state_dict()
    # As in the published file: its linear layer is a convolution.
    assert state["head.fc.weight"].shape == (1000, 2048, 1, 1)
    path = tmp_path_factory.mktemp("bit") / "model.safetensors"
    save_file(state, path)
    return path, state


def test_kernels_and_norms_of_bit(build: Fixture, load: Callable, bit: tuple[Path, dict[str, Tensor]]) -> None:
    path, theirs = bit
    model = build("i3d_r50", "group_norm", conv="weight_standardized")
    report = load(Timm(), path, model)
    ours = model.state_dict()
    assert any(
        note.startswith("warning: the file is of a network that normalizes before its convolutions") for note in report.notes
    )
    for stage, depth in enumerate((3, 4, 6, 3)):
        for block in range(depth):
            for number in (1, 2, 3):
                kernel = ours[f"trunk.res{stage + 2}.{block}.conv{number}.weight"]
                whole = theirs[f"stages.{stage}.blocks.{block}.conv{number}.weight"]
                length = kernel.shape[2]
                for t in range(length):
                    assert torch.equal(kernel[:, :, t], whole / length)
            # The norm before conv2 stands behind conv1 here, and so on; behind conv3 there is none.
            for here, there in ((1, 2), (2, 3)):
                for kind in ("weight", "bias"):
                    found = ours[f"trunk.res{stage + 2}.{block}.norm{here}.{kind}"]
                    assert torch.equal(found, theirs[f"stages.{stage}.blocks.{block}.norm{there}.{kind}"])
        shortcut = ours[f"trunk.res{stage + 2}.0.shortcut.0.weight"]
        assert torch.equal(shortcut.squeeze(2), theirs[f"stages.{stage}.blocks.0.downsample.conv.weight"])
    assert torch.equal(
        ours["trunk.conv1.weight"].sum(2), (theirs["stem.conv.weight"] / 5).unsqueeze(2).repeat(1, 1, 5, 1, 1).sum(2)
    )
    skipped = {entry.name for entry in report.entries if entry.outcome == "skipped"}
    expected = {f"trunk.res{s + 2}.{b}.norm3" for s, depth in enumerate((3, 4, 6, 3)) for b in range(depth)}
    expected |= {f"trunk.res{s}.0.shortcut.1" for s in range(2, 6)} | {"trunk.norm1", "head"}
    assert skipped == {f"{layer}.{kind}" for layer in expected for kind in ("weight", "bias")}
    unused = {name for name, _ in report.unused}
    assert {"norm.weight", "norm.bias", "stages.0.blocks.0.norm1.weight"} <= unused


def test_gammas_of_32_groups_do_not_go_over_to_16(build: Fixture, load: Callable, bit: tuple[Path, dict[str, Tensor]]) -> None:
    path, _ = bit
    model = build("i3d_r50", "group_norm", conv="weight_standardized", **{"norm.num_groups": 16})
    report = load(Timm(), path, model)
    reasons = {entry.name: entry.reason for entry in report.entries}
    assert reasons["trunk.res2.0.norm1.weight"] == "of 32 groups, and these are 16, not taken over"
    assert not [e for e in report.entries if e.outcome != "skipped" and ".norm" in e.name]
    assert any(note.startswith("64 gammas and betas start anew") for note in report.notes)  # 16 blocks of 2 norms
