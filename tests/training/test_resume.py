"""A run that was stopped and resumed ends in the very weights of the run that was not."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from videogn.cli.train import run
from videogn.training.checkpoint import read_checkpoint
from videogn.training.classifier import VideoClassifier
from videogn.types import Batch, InputError, Stopped

STEPS_PER_EPOCH, EPOCHS = 5, 2  # 20 training videos, batches of 4
BEFORE, PEAK = 1e5, 2**50  # seconds and bytes

# Saves at the end of every step, as if each took ten minutes, and is killed in one of them.
DRIVER = """
import os, signal, sys
import torch
from videogn.cli.train import run
from videogn.training import interrupt
from videogn.training.classifier import VideoClassifier
if __name__ == "__main__":
    torch.set_num_threads(1)
    interrupt._SAVE_SECONDS = 0.0
    step, steps = VideoClassifier.training_step, []
    def killed(self, batch, batch_idx):
        steps.append(batch_idx)
        if len(steps) == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, batch_idx)
    VideoClassifier.training_step = killed
    run(sys.argv[2:])
"""


@dataclass
class Recorder:
    """What training took, and where a signal comes: in a training step, or in a validation step."""

    videos: list[list[int]] = field(default_factory=list)
    dropout_seeds: list[int] = field(default_factory=list)
    stop_step: int | None = None
    stop_validation: bool = False


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """For the reference too: another number of threads is another order of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def record_steps(patch: pytest.MonkeyPatch) -> Recorder:
    record = Recorder()
    training_step, validation_step = VideoClassifier.training_step, VideoClassifier.validation_step

    def train(self: VideoClassifier, batch: Batch, batch_idx: int) -> torch.Tensor:
        if len(record.videos) == record.stop_step:
            signal.raise_signal(signal.SIGINT)
        record.videos.append(batch.videos.tolist())
        loss = training_step(self, batch, batch_idx)
        record.dropout_seeds.append(torch.initial_seed())
        return loss

    def validate(self: VideoClassifier, batch: Batch, batch_idx: int) -> None:
        if record.stop_validation:
            signal.raise_signal(signal.SIGINT)
        validation_step(self, batch, batch_idx)

    patch.setattr(VideoClassifier, "training_step", train)
    patch.setattr(VideoClassifier, "validation_step", validate)
    return record


@pytest.fixture
def recorder(uninterrupted: tuple[Path, list[list[int]]], monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Made after the uninterrupted run, whose steps it must not take for its own."""
    return record_steps(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume") / "motion"


def arguments(data: Path, out: Path, num_workers: int = 0) -> list[str]:
    return [
        f"dataset.root={data}",
        "dataset.num_train=2",
        "dataset.num_val=1",
        "dataset.num_test=1",
        "batch_size=4",
        f"epochs={EPOCHS}",
        "clip_length=4",
        "crop_size=32",
        "train_short_side=[32,36]",
        "test_short_side=34",
        "model.dropout=0.5",
        "evaluation=one_clip",
        "logger=csv",
        "trainer.log_every_n_steps=1",
        f"num_workers={num_workers}",
        f"out={out}",
    ]


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[int]]]:
    """The run folder, and the videos of every step."""
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        record = record_steps(patch)
        assert run(arguments(data, out)) == 0
    return out, record.videos


def spend(checkpoint: Path) -> None:
    """As if the process before had taken long, and much memory."""
    content = torch.load(checkpoint, weights_only=True)
    assert 0 < content["videogn"]["seconds"] < BEFORE
    assert 0 < content["videogn"]["peak_memory_bytes"] < PEAK
    content["videogn"] |= {"seconds": BEFORE, "peak_memory_bytes": PEAK}
    torch.save(content, checkpoint)


def logged_steps(out: Path) -> list[int]:
    with (out / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get("train/loss_step")]


def validated(out: Path) -> list[tuple[str, ...]]:
    """What metrics.csv has of val."""
    with (out / "metrics.csv").open(newline="") as file:
        return [
            tuple(row[key] for key in ("epoch", "step", "val/top1", "val/loss"))
            for row in csv.DictReader(file)
            if row["val/top1"]
        ]


@pytest.mark.turns
@pytest.mark.parametrize(
    ("stop_step", "num_workers"),
    [(2, 0), (2, 2), (STEPS_PER_EPOCH - 1, 0), (STEPS_PER_EPOCH + 1, 0), (None, 0)],
    ids=["mid_epoch", "mid_epoch_prefetched", "last_batch", "second_epoch", "validation"],
)
def test_resumed_equals_uninterrupted(
    data: Path,
    uninterrupted: tuple[Path, list[list[int]]],
    recorder: Recorder,
    tmp_path: Path,
    stop_step: int | None,
    num_workers: int,
) -> None:
    out = tmp_path / "run"
    recorder.stop_step, recorder.stop_validation = stop_step, stop_step is None
    with pytest.raises(Stopped, match="resume="):
        run(arguments(data, out, num_workers))
    assert len(recorder.videos) == (STEPS_PER_EPOCH if stop_step is None else stop_step + 1)
    spend(out / "checkpoint" / "last.ckpt")
    recorder.stop_step, recorder.stop_validation = None, False
    assert run([f"resume={out}"]) == 0
    expected, videos = uninterrupted
    assert recorder.videos == videos
    assert logged_steps(out) == list(range(STEPS_PER_EPOCH * EPOCHS))
    assert len(validated(out)) == EPOCHS
    assert validated(out) == validated(expected)
    one, other = (torch.load(folder / "checkpoint" / "last.ckpt", weights_only=True) for folder in (expected, out))
    # Bitwise: the same clips, dropout, schedule and momentum, in the same order on one thread.
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    assert read_checkpoint(out).step == STEPS_PER_EPOCH * EPOCHS
    result = json.loads((out / "result.json").read_text())
    # The words that repeat the run are those of its beginning.
    assert shlex.split(result["command_line"]) == ["videogn", "train", *arguments(data, out, num_workers)]
    # And what it has cost is that of both processes.
    assert result["timing"]["fit_seconds"] > BEFORE
    assert result["timing"]["total_seconds"] == pytest.approx(sum(result["timing"][f"{of}_seconds"] for of in ("fit", "test")))
    assert result["peak_memory_bytes"] >= PEAK
    assert result["hardware"]["num_devices"] == 1


def test_killed_after_any_checkpoint_equals_uninterrupted(
    data: Path,
    uninterrupted: tuple[Path, list[list[int]]],
    recorder: Recorder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that is killed outright stands at the checkpoint that it wrote last: of an epoch's last step, or of its end."""
    save, kept = pl.Trainer.save_checkpoint, []

    def keep(trainer: pl.Trainer, path: str | Path, *arguments: Any, **options: Any) -> None:
        save(trainer, path, *arguments, **options)
        if Path(path).name == "last.ckpt":
            kept.append(tmp_path / str(len(kept)))
            shutil.copytree(tmp_path / "whole", kept[-1])

    with monkeypatch.context() as patch:
        patch.setattr(pl.Trainer, "save_checkpoint", keep)
        assert run(arguments(data, tmp_path / "whole")) == 0
    expected, videos = uninterrupted
    steps = [read_checkpoint(path).step for path in kept]
    assert steps == [STEPS_PER_EPOCH] * 2 + [2 * STEPS_PER_EPOCH] * 2
    whole = torch.load(expected / "checkpoint" / "last.ckpt", weights_only=True)["state_dict"]
    shutil.rmtree(tmp_path / "whole")  # a run whose folder was moved: nothing is written where it was
    best = read_checkpoint(expected / "checkpoint" / "best.ckpt").epoch
    assert best < EPOCHS - 1  # one that the last epoch does not replace
    for out, step in list(zip(kept, steps, strict=True))[:2]:
        recorder.videos.clear()
        assert run([f"resume={out}"]) == 0
        assert recorder.videos == videos[step:]
        assert validated(out) == validated(expected)
        for name, value in torch.load(out / "checkpoint" / "last.ckpt", weights_only=True)["state_dict"].items():
            assert torch.equal(value, whole[name]), name
        assert read_checkpoint(out / "checkpoint" / "best.ckpt").epoch == best
    assert not (tmp_path / "whole").exists()


@pytest.mark.turns
def test_killed_in_the_middle_of_an_epoch_equals_uninterrupted(
    data: Path, uninterrupted: tuple[Path, list[list[int]]], recorder: Recorder, tmp_path: Path
) -> None:
    """By SIGKILL, which nothing hears: training goes on after the step at which its time to save had come."""
    out, killed = tmp_path / "run", STEPS_PER_EPOCH + 3
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, tmp_path / "driver.py", str(killed), *arguments(data, out, num_workers=2)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert read_checkpoint(out).step == killed - 1
    assert run([f"resume={out}"]) == 0
    expected, videos = uninterrupted
    # It was killed in the last of these steps, before its checkpoint.
    assert recorder.videos == videos[killed - 1 :]
    one, other = (torch.load(folder / "checkpoint" / "last.ckpt", weights_only=True) for folder in (expected, out))
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    data: Path, uninterrupted: tuple[Path, list[list[int]]], recorder: Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    recorder.stop_step = STEPS_PER_EPOCH + 1
    with pytest.raises(Stopped, match="resume="):
        run(arguments(data, out))
    recorder.stop_step = None
    last = out / "checkpoint" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1  # torch reads it, and trains on with another weight
    last.write_bytes(content)
    torch.load(last, weights_only=True)
    with pytest.raises(InputError, match=r"last\.ckpt: .* damaged"):
        read_checkpoint(last)
    recorder.videos.clear()
    assert run([f"resume={out}"]) == 0
    assert "its bytes are not those that were written; previous.ckpt is taken" in caplog.text
    expected, videos = uninterrupted
    assert recorder.videos == videos[STEPS_PER_EPOCH:]  # that of the first epoch's end
    whole = torch.load(expected / "checkpoint" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in torch.load(last, weights_only=True)["state_dict"].items():
        assert torch.equal(value, whole[name]), name
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_every_seed_and_step_drops_its_own(data: Path, recorder: Recorder, tmp_path: Path) -> None:
    for seed in (0, 1):
        assert run([*arguments(data, tmp_path / str(seed)), "epochs=1", f"seed={seed}"]) == 0
    assert len(set(recorder.dropout_seeds)) == 2 * STEPS_PER_EPOCH


def test_resumed_equals_uninterrupted_with_augmentation(data: Path, recorder: Recorder, tmp_path: Path) -> None:
    """Appearance and mixing are drawn from keys, so that a resumed run draws them as if nothing had happened."""
    augmented = [
        "transform=random_resized_crop",
        "sampler.temporal_jitter=true",
        *("appearance.brightness=0.4", "appearance.num_ops=1", "appearance.erase_probability=0.5"),
        *("mixing.mixup_alpha=0.8", "mixing.cutmix_alpha=1.0", "loss.label_smoothing=0.1"),
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run([*arguments(data, whole), *augmented]) == 0
    recorder.videos.clear()
    recorder.stop_step = STEPS_PER_EPOCH + 2
    with pytest.raises(Stopped, match="resume="):
        run([*arguments(data, cut, num_workers=2), *augmented])
    recorder.stop_step = None
    assert run([f"resume={cut}"]) == 0
    one, other = (torch.load(folder / "checkpoint" / "last.ckpt", weights_only=True)["state_dict"] for folder in (whole, cut))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    with (whole / "metrics.csv").open(newline="") as file:
        shares = [float(row["train/top1_step"]) for row in csv.DictReader(file) if row.get("train/top1_step")]
    assert len(shares) == STEPS_PER_EPOCH * EPOCHS
    # Shares of mixed labels, and no longer counts of 4 clips.
    assert any(share * 4 % 1 for share in shares)
    assert all(0 <= share < 1 for share in shares)
