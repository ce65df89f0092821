"""A loss that is no finite number ends the run before the step, and what was saved before stays."""

from __future__ import annotations

import csv
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from videogn.training.divergence import StopDivergence, not_finite
from videogn.training.metrics_file import MetricsFile
from videogn.types import Findings, Stopped

LIGHT = 250  # a clip as bright as no other


class Bright(nn.Module):
    """Divides by zero for a clip whose every pixel is LIGHT, and for no other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        is_bright = (x[:, :1].amin((1, 2, 3, 4), keepdim=True) * 64 + 127.5).round() == LIGHT
        return x / torch.where(is_bright, 0.0, 1.0)


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_names_step_lr_and_videos_and_leaves_the_weights(memory: SimpleNamespace, tmp_path: Path) -> None:
    network = memory.network()
    network.conv = nn.Sequential(Bright(), network.conv)
    bright = memory.batch([3, 4, 5])
    bright.clips[1] = LIGHT
    reached: list[dict[str, torch.Tensor]] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            reached.append(weights(network))

    (tmp_path / "last.ckpt").touch()
    logger = MetricsFile(str(tmp_path))
    with pytest.raises(Findings) as caught:
        memory.fit(
            memory.classifier(network),
            [memory.batch([0, 1]), bright, memory.batch([6])],
            callbacks=[StopDivergence(tmp_path / "last.ckpt"), Watch()],
            logger=logger,
        )
    assert str(caught.value) == (
        "diverged at step 2, epoch 1, lr 0.1: the loss is nan of 3.mp4, 4.mp4, 5.mp4; already alone: "
        f"4.mp4; {tmp_path}/last.ckpt is of before; lower the lr, warm up longer, clip the gradients "
        "(trainer.gradient_clip_val=1), or look at the videos"
    )
    assert len(reached) == 2
    # The step before moved them, and this one did not.
    assert not torch.equal(reached[0]["head.bias"], reached[1]["head.bias"])
    assert all(torch.equal(value, reached[1][name]) for name, value in weights(network).items())
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert math.isnan(float(list(csv.DictReader(file))[-1]["train/loss_step"]))


def test_says_where_the_steps_were_too_large(memory: SimpleNamespace, tmp_path: Path) -> None:
    """The weights grow beyond all numbers by the first step, with a loss that is finite."""
    classifier = memory.classifier(memory.network(), optimizer=partial(torch.optim.SGD, lr=math.inf))
    with pytest.raises(
        Findings, match=r"diverged at step 2, epoch 1, lr inf: the loss is nan .*; the weights are no finite"
    ) as error:
        memory.fit(classifier, [memory.batch([0, 1])] * 3, callbacks=[StopDivergence(tmp_path / "last.ckpt")])
    assert "such as conv.weight); no checkpoint had been written" in str(error.value)


@pytest.mark.parametrize("name", ["norm.running_var", "head.bias"])
def test_a_checkpoint_of_such_weights_is_not_written(memory: SimpleNamespace, tmp_path: Path, name: str) -> None:
    network = memory.network(nn.BatchNorm3d(4))
    path = tmp_path / "last.ckpt"

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 2:
                network.state_dict()[name][1] = math.inf
            trainer.save_checkpoint(path)

    with pytest.raises(Findings, match=rf"diverged at step 2, .*\(1 of the network's tensors, such as {name}\)"):
        memory.fit(memory.classifier(network), [memory.batch([0, 1])] * 3, callbacks=[StopDivergence(path), Save()])
    kept = torch.load(path, weights_only=True)
    assert kept["global_step"] == 1
    assert not_finite(kept["state_dict"].items()) == []


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")  # torch's, where the first step is left out
def test_a_step_that_the_scaler_leaves_out_is_none(memory: SimpleNamespace, tmp_path: Path) -> None:
    """Loss times scale is beyond float32, as the scaler of fp16 tries now and then; then it halves the scale."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-120)
    network = memory.network()
    states = [weights(network)]

    class Watch(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            states.append(weights(network))

    class Large(nn.CrossEntropyLoss):
        def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
            return super().forward(*arguments) * 16

    memory.fit(
        memory.classifier(network, loss=Large()),
        [memory.batch([0, 1])] * 2,
        callbacks=[StopDivergence(tmp_path / "last.ckpt"), Watch()],
        plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)],
    )
    first, left_out, second = (state["head.bias"] for state in states)
    assert torch.equal(first, left_out)
    assert not torch.equal(left_out, second)


def test_ranks_stop_together(memory: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those whose own loss is finite; one process says why, of all of them."""
    said = ["", "the loss is nan of train/1.mp4"]

    def gather(lines: list[Any], line: str) -> None:
        assert line == ""
        lines[:] = said

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    for local_rank, error in ((0, Findings), (1, Stopped)):
        trainer = Mock(spec=pl.Trainer, world_size=2, local_rank=local_rank, global_step=4, current_epoch=1, loggers=[])
        trainer.optimizers = [torch.optim.SGD([torch.zeros(1)], lr=0.5)]
        asked: list[bool] = []
        trainer.strategy.reduce_boolean_decision = lambda here, all, asked=asked: (asked.append(here), True)[1]
        with pytest.raises(error) as caught:
            StopDivergence(Path("none")).on_after_backward(trainer, SimpleNamespace(loss=torch.tensor(1.0)))
        assert asked == [False]
        if error is Findings:
            assert "step 5, epoch 2, lr 0.5: the loss is nan of train/1.mp4; no checkpoint" in str(caught.value)
