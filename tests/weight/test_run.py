"""Checkpoints of our own runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from videogn.norm.group_norm import GroupNorm
from videogn.types import InputError
from videogn.weight.run import Run

Build = Callable[..., nn.Module]
CLASSES = ["left", "right", "up", "down", "still"]


def write(network: nn.Module, path: Path, norm: dict[str, Any]) -> Path:
    """As Lightning and videogn.training.description.Describe write it."""
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save(
        {
            "epoch": 3,
            "global_step": 40,
            "pytorch-lightning_version": "2.5.0",
            "state_dict": {**state, "loss.weight": torch.ones(5)},
            "videogn": {"version": "0.1.0", "config": {"norm": norm, "model": {}}, "classes": CLASSES},
        },
        path,
    )
    return path


GROUP_NORM = {"_target_": "videogn.norm.group_norm.GroupNorm", "num_groups": None, "channels_per_group": None}
BATCH_NORM = {"_target_": "videogn.norm.batch_norm.BatchNorm"}


@pytest.fixture(scope="module")
def network(shallow: Build, moved: Build) -> nn.Module:
    return moved(shallow("group_norm"))


def test_the_same_classes_take_the_head_over(shallow: Build, load: Callable, network: nn.Module, tmp_path: Path) -> None:
    path = write(network, tmp_path / "last.ckpt", GROUP_NORM)
    ours = shallow("group_norm")
    report = load(Run(), path, ours, CLASSES)
    assert {entry.outcome for entry in report.entries} == {"loaded"}
    for name, value in network.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (["a", "b", "c", "d", "e"], "its 5 classes are not these 5: it starts anew"),
        (CLASSES[::-1], "its 5 classes are not these 5: it starts anew"),
        (["a", "b"], "its 5 classes are not these 2: it starts anew"),
    ],
    ids=["others", "another_order", "fewer"],
)
def test_other_classes_start_the_head_anew(
    shallow: Build, load: Callable, network: nn.Module, tmp_path: Path, classes: list[str], reason: str
) -> None:
    path = write(network, tmp_path / "last.ckpt", GROUP_NORM)
    report = load(Run(), path, shallow("group_norm", num_classes=len(classes)), classes)
    reasons = {entry.name: entry.reason for entry in report.entries if entry.outcome == "skipped"}
    assert reasons == {"head.weight": reason, "head.bias": reason}


def test_a_run_folder_means_its_last_checkpoint(network: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    path = write(network, tmp_path / "checkpoint" / "last.ckpt", GROUP_NORM)
    assert Run(path=str(tmp_path)).resolve() == path
    path.unlink()
    with pytest.raises(InputError, match=r"no checkpoint/last\.ckpt in this folder; give a run folder or a \.ckpt"):
        Run(path=str(tmp_path)).resolve()


def test_from_batch_norm_to_group_norm(shallow: Build, load: Callable, moved: Build, tmp_path: Path) -> None:
    theirs = moved(shallow("batch_norm"))
    path = write(theirs, tmp_path / "last.ckpt", BATCH_NORM)
    ours = shallow("group_norm")
    report = load(Run(), path, ours, CLASSES)
    for name, value in ours.state_dict().items():
        if ".conv" in name or "shortcut.0" in name or name.startswith("head."):
            assert torch.equal(value, theirs.state_dict()[name]), name
    skipped = [entry for entry in report.entries if entry.outcome == "skipped"]
    # conv1's norm, and four of each of the four blocks (three, and the shortcut's).
    assert len(skipped) == 2 * 17
    assert {entry.reason for entry in skipped} == {"of a batch norm, not taken over"}


@pytest.mark.parametrize(
    ("theirs", "settings", "same"),
    [
        ({"num_groups": 16}, {"norm.num_groups": 16}, True),
        ({"num_groups": 16}, {}, False),
        ({}, {"norm.num_groups": 16}, False),
        ({"channels_per_group": 16}, {"norm.channels_per_group": 16}, True),
        ({"channels_per_group": 16}, {"norm.channels_per_group": 8}, False),
    ],
)
def test_the_groups_are_those_of_the_stored_configuration(
    shallow: Build,
    load: Callable,
    network: nn.Module,
    tmp_path: Path,
    theirs: dict[str, int],
    settings: dict[str, int],
    same: bool,
) -> None:
    path = write(network, tmp_path / "last.ckpt", {**GROUP_NORM, **theirs})
    report = load(Run(), path, shallow("group_norm", **settings), CLASSES)
    outcomes = {entry.name: entry.outcome for entry in report.entries}
    assert outcomes["trunk.res5.0.norm1.weight"] == ("loaded" if same else "skipped")


@pytest.mark.filterwarnings("ignore:GroupNorm. .* does not divide")
@pytest.mark.parametrize("kind", ["num_groups", "channels_per_group"])
@pytest.mark.parametrize("number", [1, 5, 6, 16, 32, 128, 1000])
def test_the_groups_are_those_that_the_norm_chooses(network: nn.Module, tmp_path: Path, kind: str, number: int) -> None:
    """Where the number does not divide the channels too, or is above them; the norm itself is the judge."""
    settings: dict[str, Any] = {kind: number, "on_indivisible": "nearest"}
    source = Run()
    source.read(write(network, tmp_path / "last.ckpt", {**GROUP_NORM, **settings}))
    for channels in (1, 8, 9, 24, 54, 64, 97, 432):
        assert source.groups(channels) == GroupNorm(channels, **settings).num_groups, channels


@pytest.mark.parametrize("number", [0, -1, "16", 3.5])
def test_of_damaged_settings_no_groups_are_known(network: nn.Module, tmp_path: Path, number: Any) -> None:
    source = Run()
    source.read(write(network, tmp_path / "last.ckpt", {**GROUP_NORM, "channels_per_group": number}))
    assert source.groups(64) is None


def test_gamma_does_not_go_over_to_fewer_groups_where_both_took_the_nearest(
    build: Build, load: Callable, moved: Build, tmp_path: Path
) -> None:
    """X3D's first widths are 24 and 54: 32 comes to 24 and 27 groups there, and 8 to 8 and 9."""

    def network(number: int) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return build("x3d_s", **{"norm.num_groups": number, "norm.on_indivisible": "nearest"})

    settings = {"num_groups": 32, "on_indivisible": "nearest"}
    path = write(moved(network(32)), tmp_path / "last.ckpt", {**GROUP_NORM, **settings})
    for number, outcomes in ((32, {"loaded"}), (8, {"skipped"})):
        ours = network(number)
        norms = {name for name, module in ours.named_modules() if isinstance(module, GroupNorm) and module.num_channels < 64}
        report = load(Run(strict=False), path, ours, CLASSES)
        entries = [entry for entry in report.entries if entry.name.rpartition(".")[0] in norms]
        assert entries
        assert {entry.outcome for entry in entries} == outcomes


@pytest.mark.parametrize("norm", ["layer_norm", "instance_norm"])
def test_of_another_norm_without_statistics(
    shallow: Build, load: Callable, network: nn.Module, tmp_path: Path, norm: str
) -> None:
    """32 groups are neither one nor one for each channel."""
    path = write(network, tmp_path / "last.ckpt", GROUP_NORM)
    report = load(Run(), path, shallow(norm), CLASSES)
    outcomes = {entry.name: entry.outcome for entry in report.entries}
    assert outcomes["trunk.res5.0.norm1.weight"] == "skipped"


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"conv1.weight": torch.zeros(2)}},
        {"videogn": {"classes": []}, "state_dict": {}},
        {"videogn": None, "state_dict": None},
        [1, 2],
        torch.zeros(3),
    ],
    ids=["no_description", "no_configuration", "nothing", "list", "tensor"],
)
def test_a_checkpoint_of_another_program_is_refused(shallow: Build, refuse: Callable, tmp_path: Path, content: Any) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    message = refuse(Run(), path, shallow())
    assert "a checkpoint of another program; give one that videogn wrote, or choose its weight=SOURCE" in message
