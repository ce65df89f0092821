"""Early stopping with every logger, and over a resumption: it stops where it would have."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from videogn.cli.train import run
from videogn.training.classifier import VideoClassifier
from videogn.types import Batch, Stopped

STEPS = 5  # of an epoch


def words(root: Path, out: Path, *more: str) -> list[str]:
    small = ["dataset.num_train=2", "dataset.num_val=1", "dataset.num_test=1", "clip_length=4", "crop_size=32", "batch_size=4"]
    sides = ["train_short_side=[32,36]", "test_short_side=34", "num_workers=0", "report_videos=0", "evaluation=one_clip"]
    # No epoch is better than the first by so much: the third is the last.
    stopping = ["callback=[best,early_stopping]", "callback.early_stopping.patience=2", "+callback.early_stopping.min_delta=100"]
    return [f"dataset.root={root}", *small, *sides, *stopping, "epochs=6", f"out={out}", *more]


def last(folder: Path) -> Any:
    return torch.load(folder / "checkpoint/last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    assert run(words(folder / "motion", folder / "run", "logger=csv")) == 0
    assert last(folder / "run")["global_step"] == 3 * STEPS
    return folder / "run"


@pytest.mark.parametrize("logger", ["[]", "tensorboard"])
def test_with_any_logger(stopped: Path, tmp_path: Path, logger: str) -> None:
    assert run(words(stopped.parent / "motion", tmp_path / "run", f"logger={logger}")) == 0
    assert last(tmp_path / "run")["global_step"] == 3 * STEPS


def same(one: Path, other: Path) -> bool:
    states: Sequence[Any] = [last(folder)["state_dict"] for folder in (one, other)]
    results = [json.loads((folder / "result.json").read_text())["results"] for folder in (one, other)]
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items()) and results[0] == results[1]


def test_resumed_in_its_last_epoch(stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has waited for one epoch, and waits for one more."""
    step, steps = VideoClassifier.training_step, []

    def told(self: VideoClassifier, batch: Batch, batch_idx: int) -> Any:
        steps.append(batch_idx)
        if len(steps) == 2 * STEPS + 2:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(VideoClassifier, "training_step", told)
    with pytest.raises(Stopped):
        run(words(stopped.parent / "motion", tmp_path / "run", "logger=csv"))
    assert run([f"resume={tmp_path}/run"]) == 0
    assert len(steps) == 3 * STEPS
    assert same(stopped, tmp_path / "run")


def test_resumed_in_its_test(stopped: Path, tmp_path: Path) -> None:
    """Nothing is left to train, though there would be epochs."""
    (tmp_path / "run/checkpoint").mkdir(parents=True)
    (tmp_path / "run/checkpoint/last.ckpt").write_bytes((stopped / "checkpoint/last.ckpt").read_bytes())
    assert run([f"resume={tmp_path}/run"]) == 0
    assert last(tmp_path / "run")["global_step"] == 3 * STEPS
    assert same(stopped, tmp_path / "run")
