"""Files of pytorchvideo's zoo against its networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from videogn.weight.pytorchvideo import Pytorchvideo

MODELS = {
    "slow_r50": "slow_r50",
    "c2d_r50": "c2d_r50",
    "i3d_r50": "i3d_r50_slowfast",
    "r2plus1d_r50": "r2plus1d_50",
    "slowfast_r50": "slowfast_r50",
    "x3d_s": "x3d_s",
    "csn_r101": "csn_r101",
}


@pytest.mark.turns
@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_its_network(
    build: Callable[..., nn.Module],
    load: Callable,
    published: Callable,
    scores: Callable,
    assert_same: Callable,
    tmp_path: Path,
    name: str,
) -> None:
    state, clip, expected = published(name)
    path = tmp_path / f"{name}.pyth"
    torch.save({"model_state": state}, path)
    ours = build(MODELS[name], "batch_norm", num_classes=6)
    report = load(Pytorchvideo(), path, ours)
    assert not report.unused
    assert {entry.outcome for entry in report.entries} == {"renamed"}
    assert_same(scores(ours, clip), expected)


def test_another_layout_is_refused(
    shallow: Callable[..., nn.Module], refuse: Callable, published: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "other.pyth"
    torch.save({"model_state": {"s1.pathway0_stem.conv.weight": torch.zeros(64, 3, 1, 7, 7)}}, path)
    assert "has no tensor under blocks." in refuse(Pytorchvideo(), path, shallow())


@pytest.mark.parametrize(
    "name", ["blocks.x.res_blocks.0.weight", "blocks..res_blocks.", f"blocks.{'9' * 5000}.res_blocks.0.weight"]
)
def test_blocks_without_a_number(refuse: Callable, shallow: Callable, tmp_path: Path, name: str) -> None:
    torch.save({name: torch.zeros(3)}, tmp_path / "file.pyth")
    assert ": 0% of the backbone's parameters" in refuse(Pytorchvideo(), tmp_path / "file.pyth", shallow())
