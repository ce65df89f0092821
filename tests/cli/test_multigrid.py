"""multigrid, as a user sets it: what clips the steps have, at what lr, and that a stopped training goes on with them."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD

from videogn.cli.shapes import clips_of
from videogn.configuration import compose
from videogn.sampler.multigrid import Multigrid
from videogn.training import precise_statistics
from videogn.training.classifier import VideoClassifier

GRID = [
    "multigrid.cycle_ends=[0.8]",
    "multigrid.short_cycle=[0.5]",
    "crop_size=64",
    "train_short_side=[64,76]",
    "test_short_side=64",
]
KEYS = ("cycle_ends", "long_cycle", "short_cycle")
# Of the five steps of an epoch of 20 videos, and of the next: 4 clips of 4 x 64 at full size.
EXPECTED = [
    *((16 * 4, 1, 32, 8), (8 * 4, 1, 45, 8)),
    *((8 * 4, 2, 32, 4), (4 * 4, 2, 45, 4)),
    *((8 * 4, 2, 32, 2), (2 * 4, 2, 64, 2)),
    *((4 * 4, 4, 32, 1), (1 * 4, 4, 64, 1)),
    *((4 * 4, 4, 32, 1), (1 * 4, 4, 64, 1)),
]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int, float]]:
    """(clips, frames, side, lr) of every step."""
    taken: list[tuple[int, int, int, float]] = []
    shapes: list[torch.Size] = []
    training_step, step = VideoClassifier.training_step, SGD.step

    def train(self: VideoClassifier, batch: Any, batch_idx: int) -> torch.Tensor:
        shapes.append(batch.clips.shape)
        return training_step(self, batch, batch_idx)

    def move(self: SGD, closure: Any = None) -> Any:
        lr = self.param_groups[0]["lr"]
        done = step(self, closure)
        clips, frames, side = sum(shape[0] for shape in shapes), *{shape[1:3] for shape in shapes}.pop()
        taken.append((clips, frames, side, lr))
        shapes.clear()
        return done

    monkeypatch.setattr(VideoClassifier, "training_step", train)
    monkeypatch.setattr(SGD, "step", move)
    return taken


def rounded(steps: Sequence[tuple[int, int, int, float]]) -> list[tuple[int, int, int, float]]:
    return [(*step[:3], round(step[3], 9)) for step in steps]


@pytest.fixture
def words(tiny: Sequence[str], trained: Path) -> list[str]:
    kept = [word for word in tiny if not word.startswith(("crop_size", "train_short_side", "test_short_side", "epochs"))]
    return [*kept, *GRID, f"dataset.root={trained.parent}/motion", "epochs=2"]


@pytest.mark.turns
def test_every_step_has_its_clips_and_their_lr(
    videogn: Callable, words: Sequence[str], tmp_path: Path, steps: list[tuple[int, int, int, float]]
) -> None:
    outcome = videogn(
        "train", *words, "schedule=multi_step", "schedule.milestones=[0.5]", "optimizer.lr=0.001", f"out={tmp_path}/a"
    )
    assert outcome.status == 0, outcome.err
    assert "multigrid: 7 shapes of clips, 1 x 32 (16 times as many) to 4 x 64 frames x pixels" in outcome.err
    decay = [1.0] * 5 + [0.1] * 5
    assert rounded(steps) == [(*shape, round(0.001 * f * d, 9)) for (*shape, f), d in zip(EXPECTED, decay, strict=True)]
    steps.clear()
    accumulated = [*words, "batch_size=2", "trainer.accumulate_grad_batches=2", "schedule=constant", "optimizer.lr=0.001"]
    outcome = videogn("train", *accumulated, f"out={tmp_path}/b")
    assert outcome.status == 0, outcome.err
    assert rounded(steps) == [(*shape, round(0.001 * factor, 9)) for *shape, factor in EXPECTED]
    steps.clear()
    # Three of an epoch's ten batches a step, and one in the last: eight steps in all.
    accumulated[accumulated.index("trainer.accumulate_grad_batches=2")] = "trainer.accumulate_grad_batches=3"
    outcome = videogn("train", *accumulated, f"out={tmp_path}/c")
    assert outcome.status == 0, outcome.err
    plan = Multigrid([0.8], [[0.25, 0.7071], [0.5, 0.7071], [0.5, 1.0], [1.0, 1.0]], [0.5]).plan(4, 2, 64, 8)
    expected = [
        (
            shape.clips * (2 if step in (3, 7) else 6),
            shape.clip_length,
            shape.crop_size,
            round(0.001 * plan.lr_factor(step), 9),
        )
        for step, shape in enumerate(plan.shapes[plan.place(step)] for step in range(8))
    ]
    assert rounded(steps) == expected


@pytest.mark.turns
def test_a_stopped_training_goes_on(
    videogn: Callable,
    words: Sequence[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[tuple[int, int, int, float]],
) -> None:
    """And precise statistics are taken of full clips, wherever it stopped."""
    words = [*words, "norm=batch_norm", "norm.precise_batches=2"]
    moments, seen = precise_statistics.moments, []

    def make(network: Any, layers: Any, inputs: Any) -> Any:
        inputs = list(inputs)
        seen.extend(tuple(x.shape) for x in inputs)
        return moments(network, layers, iter(inputs))

    monkeypatch.setattr(precise_statistics, "moments", make)
    assert videogn("train", *words, f"out={tmp_path}/whole").status == 0
    whole, count = list(steps), len(steps)
    steps.clear()
    train = VideoClassifier.training_step

    def stop(self: VideoClassifier, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_step == 3 and len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)
        return train(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(VideoClassifier, "training_step", stop)
        assert videogn("train", *words, f"out={tmp_path}/parts").status == 128 + signal.SIGTERM
    assert 3 <= len(steps) < count
    outcome = videogn("train", f"resume={tmp_path}/parts")
    assert outcome.status == 0, outcome.err
    assert steps == whole
    one, other = (
        torch.load(tmp_path / name / "checkpoint/last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "parts")
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert set(seen) == {(4, 3, 4, 64, 64)}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["multigrid.cycle_ends=0.5"], r"multigrid.cycle_ends=0.5; give shares of the steps"),
        (["multigrid.short_cycle=[2]"], r"multigrid.short_cycle=\[2\]; give shares of the side"),
        (["batch_composition=one_class"], r"batch_composition=one_class with multigrid"),
        (["trainer.overfit_batches=1"], r"leave trainer.overfit_batches and trainer.limit_train_batches out"),
        (["+trainer.limit_train_batches=1"], r"leave trainer.overfit_batches and trainer.limit_train_batches out"),
        (["multigrid=none"], r"multigrid=none: give null for none, or values of its keys"),
        (
            ["multigrid._target_=videogn.transform.mixing.Mixing", *(f"~multigrid.{key}" for key in KEYS)],
            r"multigrid._target_=videogn.transform.mixing.Mixing: is no videogn.sampler.multigrid.Multigrid",
        ),
        (["+trainer.limit_train_batches=0.5"], r"leave trainer.overfit_batches and trainer.limit_train_batches out"),
        (["~sampler.frame_stride"], r"this sampler or transform has no such value"),
        (["train_short_side=[5,6]"], r"transform: short_side=\[5, 6\] with crop_size=64"),
        (["model=i3d_r50", "clip_length=8"], r"a clip of 2 x 32 x 32 is smaller than 7 x 5 x 5, which this network asks for"),
    ],
)
def test_bad_values_are_one_line(videogn: Callable, words: Sequence[str], overrides: list[str], message: str) -> None:
    if overrides[0].startswith("multigrid._target_"):
        words = [word for word in words if not word.startswith("multigrid.")]
    assert re.search(message, videogn("train", *words, *overrides).refusal())


def test_clips_of_a_shape_show_the_same_time_and_as_much_of_a_frame() -> None:
    """And the configuration, which is written into the run folder, stays as it is."""
    config = compose("train", ["clip_length=8", "frame_stride=2", "crop_size=64", "train_short_side=[64,80]"])
    before = config.copy()
    plan = Multigrid([1.0], [[0.25, 0.5], [1.0, 1.0]]).plan(8, 2, 64, 10)
    full, small = clips_of(config, plan)
    assert config == before
    rng = np.random.default_rng(0)
    timestamps = np.arange(300) / 30
    for (sampler, transform), length, stride, crop in ((full, 8, 2, 64), (small, 2, 8, 32)):
        (frames,) = sampler(timestamps, rng)
        assert np.diff(frames).tolist() == [stride] * (length - 1)
        # The side of the window in a frame of 160 x 160: 160 at the smallest short side, 64 and 32.
        sides = [transform.draw(160, 160, rng).height for _ in range(500)]
        assert max(sides) == 160
        assert min(sides) == round(160 * crop / 80)


def test_a_rehearsal_takes_its_steps(videogn: Callable, words: Sequence[str]) -> None:
    outcome = videogn("train", *words, "trainer.fast_dev_run=2")
    assert outcome.status == 0, outcome.err
