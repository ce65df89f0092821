"""The average against its definition; what reads it; and a run that was killed against one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from videogn.cli.train import run
from videogn.training import interrupt
from videogn.training.classifier import VideoClassifier
from videogn.training.weight_averaging import ExponentialMovingAverage, check_statistics
from videogn.types import InputError

DECAY = 0.75


class Killed(BaseException):
    """Nothing is saved when it comes."""


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_is_the_average_of_its_definition(memory: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of weights and of running statistics; validated, kept, and what is left at the end. Training does not see it."""
    classifier = memory.classifier(memory.network(nn.BatchNorm3d(4)))
    weights: list[dict[str, Tensor]] = []
    validated: list[dict[str, Tensor]] = []
    trained: list[dict[str, Tensor]] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            trained.append(state(classifier))

        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            weights.append(state(classifier))
            if len(weights) == 5:
                trainer.save_checkpoint(tmp_path / "kept.ckpt")

    step = VideoClassifier.validation_step
    monkeypatch.setattr(
        VideoClassifier, "validation_step", lambda self, *args: (validated.append(state(self)), step(self, *args))[1]
    )
    batches = [memory.batch([row, row + 1]) for row in range(3)]
    memory.fit(classifier, batches, callbacks=[ExponentialMovingAverage(DECAY), Watch()], max_epochs=2, limit_val_batches=1.0)

    average = {name: value.double() for name, value in weights[0].items()}
    averages = [average]
    for after in weights[1:]:
        average = {name: DECAY * average[name] + (1 - DECAY) * value.double() for name, value in after.items()}
        averages.append(average)
    kept = torch.load(tmp_path / "kept.ckpt", weights_only=True)
    assert equal(kept["current_model_state"], weights[4])
    assert len(validated) == 4  # two batches, twice
    found = ((kept["state_dict"], 4), (validated[0], 2), (validated[1], 2), (validated[2], 5), (state(classifier), 5))
    for values, last in found:
        for name, value in values.items():
            if name.endswith("num_batches_tracked"):
                assert value == last + 1
            else:
                # Six roundings of values of about 1.
                torch.testing.assert_close(value.double(), averages[last][name], atol=6 * 2**-23, rtol=6 * 2**-23)
                assert not torch.equal(value, weights[last][name])
    # A step begins with the weights of the one before, the first of the second epoch too.
    assert all(equal(before, after) for before, after in zip(trained[1:], weights, strict=False))


def words(root: Path, out: Path) -> list[str]:
    small = ["dataset.num_train=2", "dataset.num_val=1", "dataset.num_test=1", "clip_length=4", "crop_size=32", "batch_size=4"]
    sides = ["train_short_side=[32,36]", "test_short_side=34", "num_workers=0", "report_videos=0", "evaluation=one_clip"]
    chosen = ["norm=batch_norm", "callback=[best,ema]", "callback.ema.decay=0.8", "logger=csv", "epochs=2", "optimizer.lr=0.2"]
    return [f"dataset.root={root}", *small, *sides, *chosen, f"out={out}"]


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("averaged")
    assert run(words(folder / "motion", folder / "run")) == 0
    return folder / "run"


def results(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())["results"]


def test_killed_in_the_middle_of_an_epoch_equals_not_killed(
    averaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, steps = VideoClassifier.training_step, []

    def killed(self: VideoClassifier, batch: Any, batch_idx: int) -> Any:
        steps.append(batch_idx)
        if len(steps) == 8:
            raise Killed
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(VideoClassifier, "training_step", killed)
        patch.setattr(interrupt, "_SAVE_SECONDS", 0.0)
        with pytest.raises(Killed):
            run(words(averaged.parent / "motion", tmp_path / "run"))
    assert torch.load(tmp_path / "run/checkpoint/last.ckpt", weights_only=True)["global_step"] == 7
    assert run([f"resume={tmp_path}/run"]) == 0
    one, other = (torch.load(folder / "checkpoint/last.ckpt", weights_only=True) for folder in (averaged, tmp_path / "run"))
    for name in ("state_dict", "current_model_state", "averaging_state"):
        assert equal(one[name], other[name]), name
    assert not equal(one["state_dict"], one["current_model_state"])
    assert results(averaged) == results(tmp_path / "run")


def test_a_run_that_had_only_its_test_left_is_tested_by_the_average(averaged: Path, tmp_path: Path) -> None:
    (tmp_path / "run/checkpoint").mkdir(parents=True)
    (tmp_path / "run/checkpoint/last.ckpt").write_bytes((averaged / "checkpoint/last.ckpt").read_bytes())
    assert run([f"resume={tmp_path}/run"]) == 0
    assert results(tmp_path / "run") == results(averaged)


@pytest.mark.parametrize("name", ["last", "best"])
def test_evaluate_reads_the_average(averaged: Path, tmp_path: Path, name: str) -> None:
    from videogn.cli.evaluate import run as evaluate

    path = averaged / f"checkpoint/{name}.ckpt"
    assert evaluate([f"checkpoint={path}", f"out={tmp_path}/again", "report_videos=0"]) == 0
    same = torch.load(path, weights_only=True)["global_step"] == 10
    assert (results(tmp_path / "again") == results(averaged)) == same


def test_precise_statistics_are_refused() -> None:
    from functools import partial

    from videogn.norm.batch_norm import BatchNorm

    norm = partial(BatchNorm, precise_batches=2)
    with pytest.raises(InputError, match=r"callback=ema with norm.precise_batches: .*leave one out"):
        check_statistics(nn.Sequential(norm(4)), [ExponentialMovingAverage()])
    check_statistics(nn.Sequential(norm(4)), [])
    check_statistics(nn.Sequential(BatchNorm(4)), [ExponentialMovingAverage()])


@pytest.mark.parametrize("decay", [-0.1, 1, 1.5, float("nan"), True])
def test_a_decay_that_is_none(decay: Any) -> None:
    with pytest.raises((InputError, TypeError), match="decay"):
        ExponentialMovingAverage(decay)
