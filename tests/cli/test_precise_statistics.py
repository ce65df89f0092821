"""norm.precise_batches, as a user sets it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from videogn.training import precise_statistics
from videogn.training.classifier import VideoClassifier


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoint" / "last.ckpt", weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if name.startswith("network.")}


def results(run: Path) -> Any:
    return json.loads((run / "result.json").read_text())["results"]


@pytest.mark.turns
def test_training_is_the_same_and_the_checkpoint_holds_what_was_tested(
    videogn: Callable, tiny: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = [*tiny, "epochs=2", "norm=batch_norm", f"dataset.root={tmp_path}/motion"]
    averaged, precise, again = (tmp_path / name for name in ("averaged", "precise", "again"))
    outcome = videogn("train", *common, f"out={averaged}")
    assert outcome.status == 0, outcome.err

    calls: list[tuple[str, int]] = []
    moments = precise_statistics.moments
    training_step, validation_step = VideoClassifier.training_step, VideoClassifier.validation_step

    def make(network: Any, layers: Any, inputs: Any) -> Any:
        return moments(network, layers, (called("make", x) for x in inputs))

    def train(self: VideoClassifier, batch: Any, batch_idx: int) -> torch.Tensor:
        called("train", None)
        return training_step(self, batch, batch_idx)

    def validate(self: VideoClassifier, batch: Any, batch_idx: int) -> None:
        called("validate", None)
        validation_step(self, batch, batch_idx)

    def called(what: str, value: Any) -> Any:
        calls.append((what, len(value) if what == "make" else 0))
        if raise_at == len(calls):
            signal.raise_signal(signal.SIGINT)
        return value

    raise_at = 0
    monkeypatch.setattr(precise_statistics, "moments", make)
    monkeypatch.setattr(VideoClassifier, "training_step", train)
    monkeypatch.setattr(VideoClassifier, "validation_step", validate)
    outcome = videogn("train", *common, "norm.precise_batches=3", f"out={precise}")
    assert outcome.status == 0, outcome.err
    # Three batches of four clips after the last of five steps, and before the three batches of each validation.
    assert calls == 2 * [*5 * [("train", 0)], *3 * [("make", 4)], *3 * [("validate", 0)]]
    before, after = weights(averaged), weights(precise)
    running = {name for name in before if "running" in name}
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - running)
    assert not any(torch.equal(before[name], after[name]) for name in running)

    in_the_second_epoch = {"in_a_step": 13, "while_they_are_made": 18, "in_the_validation": 21}
    for name, raise_at in in_the_second_epoch.items():
        stopped = tmp_path / name
        calls.clear()
        assert videogn("train", *common, "norm.precise_batches=3", f"out={stopped}").status == 130
        raise_at = 0
        outcome = videogn("train", f"resume={stopped}")
        assert outcome.status == 0, outcome.err
        assert all(torch.equal(value, after[name]) for name, value in weights(stopped).items())
        assert results(stopped) == results(precise)
    outcome = videogn("evaluate", f"checkpoint={precise}", f"out={again}")
    assert outcome.status == 0, outcome.err
    assert results(again) == results(precise)
    assert results(precise) != results(averaged)


def test_a_negative_number_is_refused(videogn: Callable, tiny: Sequence[str]) -> None:
    refusal = videogn("train", *tiny, "norm=batch_norm", "norm.precise_batches=-1").refusal()
    assert "BatchNorm: precise_batches=-1; give a number of training batches, 0 or more" in refusal
