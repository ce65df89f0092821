"""mmaction2's checkpoints, made of networks of the same architecture."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.video import r2plus1d_18

from videogn.weight.mmaction import Mmaction

Build = Callable[..., nn.Module]
MODELS = {
    "i3d_r50": "i3d_r50_slowfast",
    "slowfast_r50": "slowfast_r50",
    "x3d_s": "x3d_s",
    "csn_r101": "csn_r101",
}


def write(state: Mapping[str, Tensor], path: Path) -> Path:
    torch.save({"meta": {"CLASSES": None, "mmaction_version": "0.24.1"}, "state_dict": dict(state)}, path)
    return path


def in_block(rest: str) -> str:
    """What follows the number of a block of pytorchvideo's."""
    rest = rest.replace("branch1_conv.", "downsample.conv.").replace("branch1_norm.", "downsample.bn.")
    rest = rest.replace("branch2.norm_b.1.block.0.", "se_module.fc1.").replace("branch2.norm_b.1.block.2.", "se_module.fc2.")
    rest = rest.replace("norm_b.0.", "norm_b.")
    for number, letter in enumerate("abc", start=1):
        rest = rest.replace(f"branch2.conv_{letter}.", f"conv{number}.conv.")
        rest = rest.replace(f"branch2.norm_{letter}.", f"conv{number}.bn.")
    return rest


def in_mmaction(name: str, model: str) -> str:
    """Name in mmaction2 of a tensor of pytorchvideo's."""
    number, _, rest = name.removeprefix("blocks.").partition(".")
    block = int(number)
    if model == "slowfast_r50":
        if block == 6:
            return rest.replace("proj.", "cls_head.fc_cls.")
        if rest.startswith("multipathway_fusion."):
            rest = rest.removeprefix("multipathway_fusion.").replace("conv_fast_to_slow.", "conv.").replace("norm.", "bn.")
            return f"backbone.slow_path.{'conv1' if block == 0 else f'layer{block}'}_lateral.{rest}"
        _, pathway, rest = rest.split(".", 2)
        place = f"backbone.{('slow', 'fast')[int(pathway)]}_path."
    else:
        place = "backbone."
        stages = [1, 3, 4, 5] if model == "i3d_r50" else [1, 2, 3, 4]
        if block > stages[-1]:
            if model == "x3d_s":
                rest = rest.replace("pool.pre_conv.", "backbone.conv5.conv.").replace("pool.pre_norm.", "backbone.conv5.bn.")
                return rest.replace("pool.post_conv.", "cls_head.fc1.").replace("proj.", "cls_head.fc2.")
            return rest.replace("proj.", "cls_head.fc_cls.")
        block = 0 if block == 0 else stages.index(block) + 1
    if block == 0:
        if model == "x3d_s":
            rest = rest.replace("conv.conv_t.", "conv1_s.conv.").replace("conv.conv_xy.", "conv1_t.conv.")
            return place + rest.replace("norm.", "conv1_t.bn.")
        return place + re.sub(r"^norm\.", "conv1.bn.", re.sub(r"^conv\.", "conv1.conv.", rest))
    _, number, rest = rest.split(".", 2)
    return f"{place}layer{block}.{number}.{in_block(rest)}"


@pytest.mark.turns
@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_the_network(
    build: Build, load: Callable, published: Callable, scores: Callable, assert_same: Callable, tmp_path: Path, name: str
) -> None:
    state, clip, expected = published(name)
    theirs = {in_mmaction(key, name): value for key, value in state.items()}
    if name == "slowfast_r50":
        known = {"backbone.slow_path.conv1_lateral.conv.weight", "backbone.fast_path.layer1.0.downsample.bn.weight"}
        known |= {"backbone.slow_path.layer3_lateral.bn.running_var", "backbone.slow_path.conv1.conv.weight"}
    elif name == "x3d_s":
        known = {"backbone.conv1_s.conv.weight", "backbone.layer1.0.se_module.fc1.weight", "cls_head.fc1.weight"}
        # Its first linear layer has two dimensions.
        theirs["cls_head.fc1.weight"] = theirs["cls_head.fc1.weight"].flatten(1)
    else:
        known = {"backbone.conv1.bn.bias", "backbone.layer1.0.conv1.conv.weight", "backbone.layer1.0.downsample.bn.weight"}
        known |= {"cls_head.fc_cls.weight"}
    assert known <= set(theirs)
    path = write(theirs, tmp_path / f"{name}.pth")
    ours = build(MODELS[name], "batch_norm", num_classes=6)
    report = load(Mmaction(), path, ours)
    assert not report.unused
    assert {entry.outcome for entry in report.entries} == {"renamed"}
    assert_same(scores(ours, clip), expected)


def test_scores_of_r2plus1d(
    build: Build, load: Callable, moved: Build, scores: Callable, assert_same: Callable, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    theirs = moved(r2plus1d_18(num_classes=6))
    state = {}
    for name, value in theirs.state_dict().items():
        for pattern, new in (
            (r"^stem\.0\.", "conv1.conv.conv_s."),
            (r"^stem\.1\.", "conv1.conv.bn_s."),
            (r"^stem\.3\.", "conv1.conv.conv_t."),
            (r"^stem\.4\.", "conv1.bn."),
            (r"\.conv(\d)\.1\.", r".conv\1.bn."),
            (r"\.conv(\d)\.0\.0\.", r".conv\1.conv.conv_s."),
            (r"\.conv(\d)\.0\.1\.", r".conv\1.conv.bn_s."),
            (r"\.conv(\d)\.0\.3\.", r".conv\1.conv.conv_t."),
            (r"\.downsample\.0\.", ".downsample.conv."),
            (r"\.downsample\.1\.", ".downsample.bn."),
        ):
            name = re.sub(pattern, new, name)
        state[name.replace("fc.", "cls_head.fc_cls.") if name.startswith("fc.") else f"backbone.{name}"] = value
    assert {"backbone.layer1.0.conv1.conv.bn_s.weight", "backbone.layer2.0.downsample.bn.bias"} <= set(state)
    path = write(state, tmp_path / "r2plus1d.pth")
    ours = build("r2plus1d_18", "batch_norm", num_classes=6)
    report = load(Mmaction(), path, ours)
    assert not report.unused
    clip = torch.randn(1, 3, 8, 48, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert_same(scores(ours, clip), scores(theirs, clip))


def test_laterals_without_a_norm_are_told(build: Build, load: Callable, published: Callable, tmp_path: Path) -> None:
    """mmaction2's own SlowFast joins the pathways without a norm and a ReLU, which the model here has."""
    state = {in_mmaction(key, "slowfast_r50"): value for key, value in published("slowfast_r50").state.items()}
    state = {key: value for key, value in state.items() if "_lateral.bn." not in key}
    report = load(Mmaction(), write(state, tmp_path / "slowfast.pth"), build("slowfast_r50", "batch_norm", num_classes=6))
    assert any(note.startswith("warning: the file's convolutions between the pathways") for note in report.notes)
    assert {e.name.split(".")[1] for e in report.entries if e.outcome == "skipped"} == {"lateral"}


def test_another_layout_is_refused(shallow: Build, refuse: Callable, tmp_path: Path) -> None:
    path = write({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    assert "has no tensor under backbone.; give a checkpoint of mmaction2" in refuse(Mmaction(), path, shallow())
