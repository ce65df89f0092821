"""The report of a load: its shares, its rows and its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from videogn.weight.report import Entry, LoadReport
from videogn.weight.torchvision import Torchvision

REPORT = LoadReport(
    "net.pth (torchvision)",
    [
        Entry("trunk.conv1.weight", "inflated", "conv1.weight", "", 30),
        Entry("trunk.norm1.weight", "renamed", "bn1.weight", "", 5),
        Entry("trunk.norm1.bias", "skipped", "", "not in the file", 5),
        Entry("trunk.norm1.running_mean", "renamed", "bn1.running_mean", "", 500),
        Entry("head.weight", "skipped", "fc.weight", "10 classes in the file, 5 here: it starts anew", 700),
        Entry("head.bias", "skipped", "fc.bias", "10 classes in the file, 5 here: it starts anew", 7),
    ],
    [("a", "with no place in this model"), ("b", "with no place in this model"), ("c", "another")],
    ["a note"],
)


def test_the_share_is_of_parameters_before_the_head() -> None:
    assert REPORT.backbone_share == 35 / 40


def test_a_layer_is_one_row() -> None:
    assert REPORT.layers() == [
        ("trunk.conv1", "inflated", "conv1", ""),
        ("trunk.norm1", "partly", "bn1", "not in the file"),
        ("head", "skipped", "fc", "10 classes in the file, 5 here: it starts anew"),
    ]


def test_the_line_counts_layers_and_what_was_left() -> None:
    assert REPORT.total() == (
        "net.pth (torchvision): 3 layers: 1 inflated, 1 partly, 1 skipped; 87.5% of the backbone's parameters; "
        "not used of the file: 2 with no place in this model; 1 another"
    )


def test_all_of_it_is_shown() -> None:
    lines = str(REPORT).splitlines()
    for row in REPORT.layers():
        assert [line for line in lines if all(cell in line for cell in row)], row
    assert "a note" in str(REPORT)
    assert REPORT.total() in str(REPORT)


def test_a_long_reason_is_shown_whole(shallow: Callable[..., nn.Module], load: Callable, tmp_path: Path) -> None:
    """A table that is as wide as a terminal cuts or folds it."""
    path = tmp_path / "net.pth"
    torch.save(ResNet(Bottleneck, [1, 1, 1, 1]).state_dict(), path)
    report = load(Torchvision(), path, shallow("group_norm"))
    lines = str(report).splitlines()
    rows = report.layers()
    # conv1, its norm and three convolutions, three norms and the shortcut's two of each of four blocks, and the head.
    assert len(rows) == 2 + 4 * 8 + 1
    for row in rows:
        assert len([line for line in lines if line.split()[:1] == [row[0]] and row[3] in line]) == 1, row
    assert lines[-1] == report.total()
    assert "18 inflated" not in lines[-1]
    assert "17 inflated, 18 skipped; " in lines[-1]


def test_nearly_all_is_not_all() -> None:
    entries = [Entry("trunk.a.weight", "renamed", "a", "", 99_999), Entry("trunk.b.weight", "skipped", "", "not in the file", 1)]
    assert "99.9% of the backbone's parameters" in LoadReport("f", entries, [], []).total()
