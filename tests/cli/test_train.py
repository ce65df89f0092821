"""videogn train: what it leaves behind, what it refuses."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from videogn.encoder.pyav import write_video
from videogn.model import recomputation
from videogn.training.checkpoint import read_checkpoint
from videogn.training.classifier import VideoClassifier
from videogn.training.loss import FocalLoss


def test_run_folder(trained: Path) -> None:
    names = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    expected = {"config.yaml", "manifest.csv", "metrics.csv", "checkpoint/last.ckpt", "checkpoint/best.ckpt"}
    assert expected | {"result.json", "scores.npz", "report.html"} <= names
    result = json.loads((trained / "result.json").read_text())
    assert result["status"] == "done"
    assert result["dataset"]["num_videos"] == 40
    assert result["dataset"]["num_dead"] == 0
    assert result["dataset"]["num_trained_on"] == 0
    assert result["dataset"]["root"] == str(trained.parent / "motion")
    words = shlex.split(result["command_line"])
    assert words[:2] == ["videogn", "train"]
    assert words[-1] == f"out={trained}"
    timing = result["timing"]
    assert timing["fit_seconds"] + timing["test_seconds"] == pytest.approx(timing["total_seconds"])
    # 20 clips in an epoch that took less than fit_seconds, and more than a clip in a millisecond on no machine of ours
    assert 20 / timing["fit_seconds"] < timing["train_clips_per_second"] < 20_000
    (entry,) = result["results"]
    assert entry["protocol"]["num_clips"] == 10
    assert sum(c["num_videos"] for c in entry["metrics"]["per_class"].values()) == 10
    views = np.load(trained / "scores.npz")["ten_clip/logits"]
    assert views.shape == (10, 10, 10)
    right = torch.from_numpy(views).double().softmax(2).mean(1).argmax(1).numpy() == np.load(trained / "scores.npz")["labels"]
    assert entry["metrics"]["top1"] == pytest.approx(right.mean())
    matrix = np.load(trained / "scores.npz")["ten_clip/confusion"]
    assert (matrix.sum(), matrix.trace()) == (10, right.sum())


def test_checkpoint_holds_plain_data_only(trained: Path) -> None:
    def walk(node: object, place: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                assert isinstance(key, (str, int)), place
                walk(value, f"{place}.{key}")
        elif isinstance(node, (list, tuple)):
            for value in node:
                walk(value, place)
        else:
            assert node is None or isinstance(node, (torch.Tensor, str, int, float, bool)), (place, type(node))

    content = torch.load(trained / "checkpoint" / "last.ckpt", weights_only=True)
    walk(content, "checkpoint")
    assert len(content["videogn"]["classes"]) == 10
    assert content["videogn"]["config"]["mean"] == [114.75, 114.75, 114.75]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hydra.run.dir=elsewhere"], r"hydra\.run\.dir: .*out=FOLDER"),
        (["-m", "seed=0,1", "hydra.sweep.dir=elsewhere"], r"hydra\.sweep\.dir: .*sweep=NAME"),
        (["batch_sise=4"], r"batch_sise: no such key or group .*nearest: .*batch_size"),
        (["norm=grup_norm"], r"norm=grup_norm: not one of batch_norm, .*, sync_batch_norm; nearest: group_norm"),
        (["dataset.rot=x"], r"dataset\.rot: .*nearest: dataset\.root"),
        (["norm=grup_norm,batch_norm", "-m"], r"norm=grup_norm: not one of"),
        (["batch_sise=4,8", "-m"], r"batch_sise: no such key"),
        (["batch_size=abc"], r"batch_size=abc: give a whole number from 1 up"),
        (["epochs=0"], r"epochs=0: give a whole number from 1 up"),
        (["norm.num_groups=7"], r"GroupNorm: num_groups=7 does not divide channels=32; use one of 1, 2, 4, 8, 16, 32"),
        (["batch_size=21"], r"batch_size=21 needs 21 clips a step and an epoch has 20; lower batch_size or add videos"),
        (["crop_size=34"], r"short_side=\[32, 36\] with crop_size=34; the rule is crop_size <= low <= high"),
        (["dataset=class_folder", "dataset.root=/nowhere"], r"/nowhere: no such folder"),
        (["dataset=class_folder"], r"dataset\.root: needed; give it as dataset\.root=VALUE"),
        (["+trainer.sync_batchnorm=true"], r"trainer\.sync_batchnorm: Lightning would put a plain SyncBatchNorm"),
        (["resume=/nowhere"], r"/nowhere: no such run folder or checkpoint"),
        (["batch_size=[1"], r"batch_size=\[1"),
        (["seed=0,x", "-m"], r"seed=x: give a whole number from 0 up"),
        (["+norm.no_such=1"], r"model, norm, conv: .*unexpected keyword argument 'no_such'; correct their configuration"),
        (["evaluation=[]"], r"evaluation: no protocol; give at least one"),
        (
            ["+evaluation.one_clip.aggregation=max"],
            r"evaluation.one_clip: values of a protocol that is not chosen; choose it too",
        ),
        (["dataset.flip=2"], r"transform: flip=2 is no probability; give 0 to 1"),
        (["appearance.hue=0.9"], r"appearance: hue=0.9; give 0 to 0.5"),
        (["mixing.probability=2.0"], r"mixing: probability=2.0 is no probability; give 0 to 1"),
        (["mean=3"], r"mean=3: give three numbers, for R, G and B"),
        (["std=[57,0,57]"], r"std=\[57, 0, 57\]: give three numbers above 0"),
        (["optimizer.lr=fast"], r"SGD: lr=fast; give a number"),
        (["optimizer.momentum=-1"], r"optimizer: Invalid momentum value: -1; correct its values"),
        (["schedule.pct_start=2"], r"schedule: Expected float between 0 and 1 pct_start.*; correct its values"),
        (["~norm"], r"norm: not in the configuration, and needed; give it back"),
        (["norm=null"], r"override must be a string or a list.*norm=null"),
        (["--no-such-flag"], r"train: unrecognized arguments: --no-such-flag; `videogn train --help`"),
        (["optimizer.nesterov=yes"], r"SGD: nesterov=yes; give true or false"),
        (["optimizer.weight_decay=true"], r"SGD: weight_decay=True; give a number"),
        (
            ["decoder=pyav", "decoder.deadline_seconds=1"],
            r"decoder.deadline_seconds: no such .*; what is chosen for its group has none",
        ),
        (["model.zero_init=no"], r"ResNet3D: zero_init=no; give true or false"),
        (["norm_weight_decay=no"], r"norm_weight_decay=no: give true or false"),
        (["total_steps=3"], r"total_steps=3: the training has 5 steps, and the schedule ends before; give as many or more"),
        (["+batch_size=2"], r"\+batch_size: is in the configuration already; give it without the \+"),
        (["callback.best.monitor=val_top1"], r"ModelCheckpoint: monitor=val_top1; use one of val/top1, val/loss, train/loss, "),
        (["callback=early_stopping", "callback.early_stopping.monitor=val/acc"], r"EarlyStopping: monitor=val/acc; use one of"),
        (["dataset.exclude=true"], r"dataset.exclude=True; give a CSV file"),
        (["total_steps=5", "trainer.max_epochs=2"], r"total_steps=5: the training has 10 steps"),
        (["base_lr=0.1"], r"base_lr=0.1: stated for how many clips a step\? give base_batch_size as well"),
        (["base_lr=0", "base_batch_size=8"], r"base_lr=0: give a number above 0, or null"),
        (["base_lr=0.1", "base_batch_size=8", "optimizer.lr=0.2"], r"optimizer.lr=0.2 and base_lr=0.1, which sets it"),
        (["base_steps=9", "base_batch_size=8"], r"epochs=1 and base_steps=9: give one of them, and null for the other"),
        (["epochs=null"], r"epochs=None and base_steps=None: give one of them"),
        (["schedule=multi_step", "schedule.milestones=[2]"], r"schedule: milestones=2; give shares of the steps"),
        (["batch_composition=one_group"], r"batch_composition=one_group: the data have no groups; give them as"),
        (["batch_composition=pure"], r"batch_composition=pure: use one of mixed, one_class, one_group"),
        (["experiment=moton"], r"experiment=moton: not one of .*; nearest: motion"),
        (["total_steps=3", "schedule=cosine"], r"total_steps=3: the training has 5 steps, and the schedule ends before"),
        (["warmup.epochs=1"], r"warmup: OneCycleLR does not take one; use schedule=cosine"),
        (["warmup.epochs=1", "schedule=cosine"], r"schedule: a warm-up of 5 steps leaves none of 5; .*; correct its values"),
        (
            ["callback=ema", "norm=batch_norm", "norm.precise_batches=2"],
            r"callback=ema with norm.precise_batches: .*leave one out",
        ),
        (["trainer.overfit_batches=0.5"], r"trainer.overfit_batches=0.5: give a whole number of batches"),
        (["trainer.fast_dev_run=-1"], r"trainer.fast_dev_run=-1: give true, or a whole number of batches from 0 up"),
        (["dataset.num_train=-1"], r"dataset.num_train=-1: give a whole number of videos a class, from 0 up"),
        (
            ["trainer.fast_dev_run=true", "trainer.overfit_batches=1"],
            r"trainer.overfit_batches: two ways .*; leave one out",
        ),
        (["trainer.fast_dev_run=true", "out=x"], r"out=x: trainer.fast_dev_run and .* write nothing; leave out= out"),
        (["trainer.fast_dev_run=true", "seed=0,1", "-m"], r"trainer.fast_dev_run=true with -m: it writes nothing"),
        (["trainer.profiler=fast"], r"trainer.profiler=fast: use one of simple, advanced, pytorch, or null"),
        (["total_steps=true"], r"total_steps=True: give a whole number from 1 up"),
        (["trainer.accumulate_grad_batches=0"], r"trainer\.accumulate_grad_batches=0: give a whole number from 1 up"),
        (["loss.label_smoothing=1.5"], r"CrossEntropy: label_smoothing=1.5; give a number from 0 to 1"),
        (["loss=focal", "loss.class_weights={run: 2}"], r"loss.class_weights: 'run' is not one of the 10 classes"),
        (["loss.class_weights=balanced", "class_balanced=true"], r"class_balanced=true draws every class .*: leave one out"),
        (["decoder=[]"], r"decoder: not in the configuration, and needed; give it back"),
        (["validation=null"], r"validation: no protocol; give one, as evaluation@validation=one_clip"),
        (["warmup=none"], r"warmup=none: give null for none, or values of its keys"),
        (["trainer.precision=16-true"], r"trainer.precision=16-true: use one of 32-true, bf16-mixed, 16-mixed, 64-true"),
        (["trainer.gradient_clip_val=nan"], r"trainer.gradient_clip_val=nan: give a number"),
        (["trainer.gradient_clip_val=-1"], r"trainer.gradient_clip_val=-1: give the largest norm or value"),
        (["trainer.deterministic=yes"], r"trainer.deterministic=yes: use true, false or warn"),
        (["optimizer.lr=nan"], r"optimizer.lr=nan: give a number"),
        (["mean=[1,nan,1]"], r"mean.1=nan: give a number"),
        (["schedule=multi_step", "schedule.gamma=-1"], r"schedule: gamma=-1; give what a milestone multiplies the lr with"),
        (["callback=keep", "callback.keep.every_n_epochs=0"], r"callback.keep.every_n_epochs=0: give a whole number from 1 up"),
        (["callback=keep", "callback.keep.every_n_epochs=x"], r"Keep: every_n_epochs=x; give a whole number"),
        (["callback=keep", "callback.keep.save_top_k=0"], r"callback.keep.save_top_k=0: give how many, from 1 up, or -1"),
        (["callback=keep", "callback.keep.save_top_k=3"], r"callback.keep.save_top_k=3: the best by what\? give"),
        (["appearance=none"], r"appearance=none: give null for none, or values of its keys"),
        (["mixing=none"], r"mixing=none: give null for none, or values of its keys"),
        (["out=[a]"], r"out=\['a'\]: give a folder"),
        (["dataset=class_folder", "dataset.root=2024"], r"2024: no such folder"),
        (["dataset=class_folder", "dataset.root="], r"dataset\.root=: the path is empty; give one, or leave dataset\.root= out"),
        (["resume="], r"resume=: the path is empty"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    videogn: Callable,
    trained: Path,
    tiny: Sequence[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = [] if any(o.startswith("dataset=") for o in overrides) else [*tiny, f"dataset.root={trained.parent}/motion"]
    assert re.search(message, videogn("train", *data, *overrides).refusal())
    assert list(tmp_path.iterdir()) == []


def test_without_a_logger_and_with_what_is_left_out(
    videogn: Callable, trained: Path, tiny: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning refuses to watch the learning rate without a logger. And a folder may be called 2024."""
    monkeypatch.chdir(tmp_path)
    small = [o for o in tiny if not o.startswith("logger=")]
    command = ["train", *small, f"dataset.root={trained.parent}/motion", "mixing=null", "appearance=null", "callback.best=null"]
    assert videogn(*command, "logger=[]", "out=2024").status == 0
    names = {path.name for path in (tmp_path / "2024").rglob("*")}
    assert {"last.ckpt", "result.json"} <= names
    assert not names & {"metrics.csv", "best.ckpt"}
    outcome = videogn(*command, "logger.tensorboard=null", "out=1.5", "total_steps=3", "+trainer.max_steps=3")
    assert outcome.status == 0, outcome.err
    names = {path.name for path in (tmp_path / "1.5").rglob("*")}
    assert "metrics.csv" in names
    assert not any(name.startswith("events.") for name in names)
    assert torch.load(tmp_path / "1.5" / "checkpoint" / "last.ckpt", weights_only=True)["global_step"] == 3


def test_an_output_folder_that_cannot_be_written(videogn: Callable, trained: Path, tiny: Sequence[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = videogn("train", *tiny, f"dataset.root={trained.parent}/motion", f"out={tmp_path}/file/run")
    assert "cannot be written" in outcome.refusal()


def test_bad_videos_are_skipped_counted_and_wrong(videogn: Callable, tiny: Sequence[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 1), ("test", 2)):
        for label in ("jump up", "run"):
            folder = tmp_path / "videos" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                # Two frames: shorter than the clip, so the clip loops.
                frames = rng.integers(0, 256, (2 if number else 20, 40, 48, 3), np.uint8)
                write_video(folder / f"{number}.mp4", iter(frames), 25.0)
    train, test = tmp_path / "videos/train/run", tmp_path / "videos/test/run"
    whole = (train / "0.mp4").read_bytes()
    (train / "zero.mp4").touch()
    (train / "noise.mp4").write_bytes(rng.bytes(9000))
    (train / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with wave.open(str(train / "sound.avi"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(rng.bytes(8000))
    (test / "noise.mp4").write_bytes(rng.bytes(9000))
    root = tmp_path / "videos"
    small = [o for o in tiny if not o.startswith("dataset.")]
    command = ["train", *small, "dataset=class_folder", f"dataset.root={root}"]
    outcome = videogn(*command, f"out={tmp_path}/run", "epochs=2", "dataset.max_bad_fraction=0.5")
    assert outcome.status == 0, outcome.err
    assert "4 training videos could not be read: skipped, and listed in" in outcome.err
    assert outcome.err.count("skipped ") == 4  # each once, not once an epoch
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["dataset"]["num_dead"] == 5
    (entry,) = result["results"]
    assert [Path(video["path"]).name for video in entry["dead_videos"]] == ["noise.mp4"]
    # Five test videos, one of them dead: it is in the denominator and never right.
    assert entry["metrics"]["top1"] in {0.0, 0.2, 0.4, 0.6, 0.8}
    assert entry["metrics"]["per_class"]["run"]["num_videos"] == 3
    with (tmp_path / "run" / "quarantine.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["path"] for row in rows) == [
        f"train/run/{name}" for name in ("cut.mp4", "noise.mp4", "sound.avi", "zero.mp4")
    ]
    assert all(row["reason"] for row in rows)

    outcome = videogn(*command, f"out={tmp_path}/stopped")
    assert outcome.status == 1
    assert "of 12 training videos cannot be read" in outcome.err.splitlines()[-1]
    assert "dataset.max_bad_fraction=0.05 allows no more" in outcome.err.splitlines()[-1]
    outcome = videogn(*command, f"out={tmp_path}/mended", f"dataset.exclude={tmp_path}/run/quarantine.csv")
    assert outcome.status == 0, outcome.err
    assert "4 train videos of the 4 that it names" in outcome.err
    assert "skipped " not in outcome.err
    assert not (tmp_path / "mended" / "quarantine.csv").exists()
    outcome = videogn(*command, f"out={tmp_path}/no", "dataset.max_bad_fraction=2")
    assert "dataset.max_bad_fraction=2; give a share of the training videos from 0 to 1" in outcome.refusal()


@pytest.mark.turns
def test_ctrl_c_leaves_a_checkpoint_and_a_message(tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "one, two = #3"
    command = [sys.executable, "-m", "videogn", "train", *tiny, f"dataset.root={trained.parent}/motion", f"out={out}"]
    seen = []
    with subprocess.Popen([*command, "epochs=500"], stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            seen.append(line)
            if line.startswith("epoch 2/"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130, seen
    assert "Traceback" not in rest
    assert rest.splitlines()[-1].startswith("videogn: stopped: ")
    # The words of the command as a shell reads them.
    assert shlex.split(rest.splitlines()[-1])[-3:] == ["videogn", "train", f"resume={out}"]
    assert torch.load(out / "checkpoint/last.ckpt", weights_only=True)["epoch"] >= 1


@pytest.mark.turns
def test_sigterm_to_all_processes_leaves_a_checkpoint(tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    """As `timeout` and systemd send it: the loader's workers leave it to the training."""
    command = [sys.executable, "-m", "videogn", "train", *tiny, f"dataset.root={trained.parent}/motion", f"out={tmp_path}/run"]
    words = [*command, "epochs=500", "num_workers=2"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                os.killpg(process.pid, signal.SIGTERM)
                break
        rest = process.stderr.read()
    assert process.returncode == 143, rest
    assert rest.splitlines()[-1].startswith("videogn: stopped: ")
    assert group_is_gone(process.pid)


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.turns
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_two_devices_start(tiny: Sequence[str], trained: Path, tmp_path: Path, signum: signal.Signals) -> None:
    """The other process has not even imported torch. Ctrl-C goes to both, as a terminal sends it; SIGTERM to the first."""
    command = [sys.executable, "-m", "videogn", "train", *tiny, f"dataset.root={trained.parent}/motion", f"out={tmp_path}/run"]
    devices = ["trainer.accelerator=cpu", "trainer.devices=2", "epochs=500"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, *devices], stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment, start_new_session=True
    ) as process:
        assert process.stderr is not None
        header = next(line for line in process.stderr if "steps an epoch" in line)
        assert header
        time.sleep(1)  # the other process is there, and imports
        if signum == signal.SIGINT:
            os.killpg(process.pid, signum)
        else:
            process.send_signal(signum)
        rest = process.stderr.read()
    assert "Traceback" not in rest
    if signum == signal.SIGINT:
        assert process.returncode == 130, rest
        assert rest.count("videogn: stopped: ") == 1
        assert (tmp_path / "run/checkpoint/last.ckpt").is_file()
    else:
        assert process.returncode == -signum
    deadline = time.monotonic() + 30
    while not group_is_gone(process.pid):
        assert time.monotonic() < deadline, "a process of the other device is left"
        time.sleep(0.1)


@pytest.mark.turns
def test_norms_of_two_devices_wait_for_no_batch_of_dead_videos(tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    """Half of the training videos cannot be read, at one clip a device: in some step one of two devices has none."""
    for split, number in (("train", 8), ("val", 1), ("test", 1)):
        for label in ("move_left", "zoom_in"):
            folder = tmp_path / "videos" / split / label
            folder.mkdir(parents=True)
            whole = sorted((trained.parent / "motion" / "train" / label).glob("*.mp4"))[0]
            for index in range(number):
                (folder / f"{index}.mp4").write_bytes(whole.read_bytes() if index % 2 == 0 else b"no video")
    small = [o for o in tiny if not o.startswith(("dataset.", "batch_size"))]
    command = [sys.executable, "-m", "videogn", "train", *small, "dataset=class_folder", f"dataset.root={tmp_path}/videos"]
    command.append("dataset.max_bad_fraction=1")
    devices = ["trainer.accelerator=cpu", "trainer.devices=2", "batch_size=1", "norm=sync_batch_norm", f"out={tmp_path}/run"]
    done = subprocess.run(
        [*command, *devices],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "training videos could not be read" in done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert np.isfinite(result["results"][0]["metrics"]["loss"])


def test_a_finished_run_is_left_alone(videogn: Callable, trained: Path) -> None:
    before = (trained / "result.json").read_bytes()
    outcome = videogn("train", f"resume={trained}")
    assert outcome.status == 0
    assert "this run is finished" in outcome.err
    assert (trained / "result.json").read_bytes() == before


@pytest.mark.turns
def test_a_division_that_moved_is_said_and_no_run_goes_on_with_it(
    videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path
) -> None:
    """Four videos more in folders that are divided by drawing: others are tested, among them some that were trained on."""
    root, run = tmp_path / "the videos", tmp_path / "run"
    for label in ("move_left", "zoom_in"):
        (root / label).mkdir(parents=True)
        (whole, *_) = sorted((trained.parent / "motion" / "train" / label).glob("*.mp4"))
        for number in range(8):
            (root / label / f"{number}.mp4").write_bytes(whole.read_bytes())
    small = [o for o in tiny if not o.startswith("dataset.")]
    assert videogn("train", *small, "dataset=class_folder", f"dataset.root={root}", f"out={run}").status == 0
    same = videogn("evaluate", f"checkpoint={run}", "evaluation=one_clip", f"out={tmp_path}/same")
    assert same.status == 0
    assert "warning: " not in same.err
    for number in range(8, 12):
        (root / "move_left" / f"{number}.mp4").write_bytes(whole.read_bytes())
    moved = videogn("evaluate", f"checkpoint={run}", "evaluation=one_clip", f"out={tmp_path}/moved")
    assert moved.status == 0
    (warning,) = (line for line in moved.err.splitlines() if line.startswith("warning: "))
    assert "16 videos then, 20 now; " in warning
    seen = json.loads((tmp_path / "moved" / "result.json").read_text())["dataset"]["num_trained_on"]
    assert seen > 0
    assert f"; {seen} of the 3 videos tested have the path or video_id of one that was trained on" in warning
    assert f"{seen} of the videos of this score were trained on" in moved.out
    assert f"{seen} of the scored videos were trained" in (tmp_path / "moved" / "report.html").read_text()

    (run / "result.json").unlink()
    refusal = videogn("train", f"resume={run}").refusal()
    remedy = re.search(r"go on with the list of the run: (.*), or start another run$", refusal)
    assert remedy is not None, refusal
    arguments = shlex.split(remedy[1])
    assert videogn("train", f"resume={run}", *arguments).status == 0
    again = videogn("evaluate", f"checkpoint={run}", "evaluation=one_clip", f"out={tmp_path}/again", *arguments)
    assert again.status == 0
    assert "warning: " not in again.err
    assert np.array_equal(*(np.load(tmp_path / name / "scores.npz")["paths"] for name in ("same", "again")))


def test_a_choice_on_the_tested_videos_is_said(videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    """Without a test split val is tested, and the best.ckpt was chosen on val; the last one was not."""
    videos = tmp_path / "videos"
    for split, source in (("train", "train"), ("val", "test")):
        (videos / split).mkdir(parents=True)
        for label in ("move_left", "zoom_in"):
            (videos / split / label).symlink_to(trained.parent / "motion" / source / label)
    small = [o for o in tiny if not o.startswith("dataset.")]
    outcome = videogn("train", *small, "dataset=class_folder", f"dataset.root={videos}", f"out={tmp_path}/run")
    assert outcome.status == 0, outcome.err
    for name, chosen in (("last", False), ("best", True)):
        outcome = videogn("evaluate", f"checkpoint={tmp_path}/run/checkpoint/{name}.ckpt", f"out={tmp_path}/{name}")
        assert outcome.status == 0, outcome.err
        assert json.loads((tmp_path / name / "result.json").read_text())["selected_on_test"] is chosen
        assert ("there is no test split" in outcome.out) is chosen


@pytest.mark.turns
def test_two_devices(tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "videogn", "train", *tiny, f"dataset.root={trained.parent}/motion", f"out={tmp_path}/run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    devices = ["trainer.accelerator=cpu", "trainer.devices=2"]
    done = subprocess.run([*command, *devices], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert sum(c["num_videos"] for c in result["results"][0]["metrics"]["per_class"].values()) == 10
    assert not np.isnan(np.load(tmp_path / "run/scores.npz")["ten_clip/logits"]).any()


@pytest.mark.turns
def test_a_run_goes_on_over_as_many_devices(videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    command = ["train", f"resume={tmp_path}/run", "trainer.accelerator=cpu"]
    two = subprocess.run(
        [sys.executable, "-m", "videogn", *command, "trainer.devices=2"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert two.returncode == 2
    assert "the run is of 1 device, and here are 2; give as many again (trainer.devices, trainer.num_nodes)" in two.stderr
    assert "Traceback" not in two.stderr
    assert videogn(*command, "trainer.devices=1").status == 0


@pytest.mark.turns
def test_64_bits_have_a_page_and_a_prediction(videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    data, run = trained.parent / "motion", tmp_path / "run"
    outcome = videogn("train", *tiny, f"dataset.root={data}", f"out={run}", "trainer.precision=64-true", "report_videos=1")
    assert outcome.status == 0, outcome.err
    assert torch.load(run / "checkpoint/last.ckpt", weights_only=True)["state_dict"]["network.head.bias"].dtype == torch.float64
    assert "Grad-CAM" in (run / "report.html").read_text()
    assert videogn("predict", str(run), str(data / "test/zoom_in/000.mp4")).status == 0


def test_a_recipe_is_scaled_by_the_clips_of_a_step(videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    """20 videos, 2 batches of 4 accumulated to a step: 6 steps of 4 clips are 3 of 8."""
    recipe = ["base_batch_size=4", "base_lr=0.1", "base_steps=6", "epochs=null", "trainer.accumulate_grad_batches=2"]
    words = [*recipe, "schedule=multi_step", "schedule.milestones=[0.5]", "warmup.epochs=0.4", "trainer.log_every_n_steps=1"]
    outcome = videogn("train", *tiny, f"dataset.root={trained.parent}/motion", f"out={tmp_path}/run", *words)
    assert outcome.status == 0, outcome.err
    assert (
        "8 clips a step; lr 0.2 = 0.1 x 8 / 4; 3 steps = 6 x 4 / 8, 1.0 epochs\nwarm-up: 1 of 3 steps, lr 0.002 to 0.2\n"
        in outcome.err
    )
    content = torch.load(tmp_path / "run/checkpoint/last.ckpt", weights_only=True)
    assert content["global_step"] == 3
    assert content["videogn"]["config"]["optimizer"]["lr"] == 0.2
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.02)


@pytest.mark.parametrize("activation_memory", ["lean", "minimal"])
def test_what_is_computed_again_trains_the_same_weights(
    videogn: Callable,
    tiny: Sequence[str],
    trained: Path,
    tmp_path: Path,
    activation_memory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint, devices = recomputation.checkpoint, []

    def noted(compute: Callable, x: torch.Tensor, **settings: Any) -> torch.Tensor:
        devices.append(x.device.type)
        return checkpoint(compute, x, **settings)  # pyright: ignore[reportReturnType]

    monkeypatch.setattr(recomputation, "checkpoint", noted)
    words = [f"dataset.root={trained.parent}/motion", f"out={tmp_path}/run", "report_videos=0"]
    assert videogn("train", *tiny, *words, f"activation_memory={activation_memory}").status == 0
    expected, found = read_checkpoint(trained), read_checkpoint(tmp_path / "run")
    assert found.config["activation_memory"] == activation_memory
    assert "cpu" in devices  # the page counts on the meta device
    assert all(torch.equal(found.weights[name], weight) for name, weight in expected.weights.items())


def test_an_epoch_without_validation_shows_none(videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    """The metrics of the last validation stay known; they are not of this epoch."""
    words = [f"dataset.root={trained.parent}/motion", f"out={tmp_path}/run", "epochs=3", "+trainer.check_val_every_n_epoch=2"]
    lines = [line for line in videogn("train", *tiny, *words).err.splitlines() if line.startswith("epoch ")]
    assert ["val loss" in line for line in lines] == [False, True, False]
    assert ["val top-1" in line for line in lines] == [False, True, False]


@pytest.mark.parametrize(
    ("every", "expected"), [(2, []), (3, ["no validation: trainer.check_val_every_n_epoch=3, and the training has 2 epochs"])]
)
def test_a_training_without_a_validation_says_so(
    videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path, every: int, expected: list[str]
) -> None:
    """Five batches an epoch, two a step: three steps an epoch, six in two."""
    words = [f"dataset.root={trained.parent}/motion", f"out={tmp_path}/run", "epochs=2", "trainer.accumulate_grad_batches=2"]
    err = videogn("train", *tiny, *words, f"+trainer.check_val_every_n_epoch={every}").err
    assert [line for line in err.splitlines() if line.startswith("no validation")] == expected
    assert ("val loss" in err) == (not expected)


@pytest.mark.turns
def test_a_part_of_the_users_own(tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    """A class beside ./conf, which names it; and the run that it makes is refused where ./conf does not."""
    (tmp_path / "conf/norm").mkdir(parents=True)
    (tmp_path / "conf/norm/mine.yaml").write_text("_target_: my_package.Scale\n_partial_: true\n")
    (tmp_path / "my_package.py").write_text(
        "import torch\nfrom videogn.norm.norm import Norm\n"
        "class Scale(Norm):\n"
        "    def __init__(self, channels, activation=None, zero_init=False):\n"
        "        super().__init__(channels, activation, zero_init)\n"
        "        self.scale = torch.nn.Parameter(torch.tensor(0.1))\n"
        "    def normalize(self, x):\n"
        "        return x * self.scale\n"
    )
    program = str(Path(sys.executable).with_name("videogn"))  # which Python starts without the working directory on its path

    def call(*arguments: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess:
        return subprocess.run([program, *arguments], capture_output=True, text=True, cwd=cwd, timeout=300)

    done = call("train", *tiny, f"dataset.root={trained.parent}/motion", "norm=mine", "out=run")
    assert done.returncode == 0, done.stderr
    weights = torch.load(tmp_path / "run/checkpoint/last.ckpt", weights_only=True)["state_dict"]
    assert any(name.endswith(".scale") for name in weights)
    assert call("evaluate", "checkpoint=run").returncode == 0
    (tmp_path / "elsewhere").mkdir()
    refused = call("evaluate", "checkpoint=../run", cwd=tmp_path / "elsewhere")
    assert refused.returncode == 2
    assert "names 'my_package.Scale' under norm._target_, which no file of conf/ does" in refused.stderr


def test_a_weighted_focal_loss_with_mixing(
    videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, seen = FocalLoss.forward, []
    monkeypatch.setattr(FocalLoss, "forward", lambda self, *args: (seen.append(self.weight.tolist()), forward(self, *args))[1])
    words = ["loss=focal", "loss.class_weights={zoom_in: 3, zoom_out: 0.5}", "mixing.mixup_alpha=0.8", "loss.label_smoothing=0.1"]
    outcome = videogn("train", *tiny, f"dataset.root={trained.parent}/motion", f"out={tmp_path}/run", *words)
    assert outcome.status == 0, outcome.err
    assert "\nclass weights, least and largest: 0.5 (zoom_out), 3 (zoom_in)\n" in outcome.err
    content = torch.load(tmp_path / "run/checkpoint/last.ckpt", weights_only=True)
    assert content["videogn"]["config"]["loss"]["class_weights"] == {"zoom_in": 3, "zoom_out": 0.5}
    expected = [{"zoom_in": 3, "zoom_out": 0.5}.get(name, 1) for name in content["videogn"]["classes"]]
    assert len(seen) >= 5
    assert all(weights == expected for weights in seen)
    assert not any("weight" in name and not name.startswith("network.") for name in content["state_dict"])


def test_rehearsals_take_their_steps_and_leave_nothing(
    videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of training, of validation and of test, where a schedule for one step could not be made; or two batches by heart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    taken: list[tuple[str, list[int]]] = []
    for name in ("training", "validation", "test"):
        step = getattr(VideoClassifier, f"{name}_step")

        def counted(self: VideoClassifier, batch: Any, index: int, step: Any = step, name: str = name) -> Any:
            taken.append((name, (batch if name == "training" else batch[0]).videos.unique().tolist()))
            return step(self, batch, index)

        monkeypatch.setattr(VideoClassifier, f"{name}_step", counted)
    saved: list[Path] = []
    save = pl.Trainer.save_checkpoint
    monkeypatch.setattr(
        pl.Trainer, "save_checkpoint", lambda self, path, *a, **k: (saved.append(path), save(self, path, *a, **k))[1]
    )
    words = [*tiny, f"dataset.root={trained.parent}/motion", "callback=[best,lr_monitor,early_stopping]"]
    outcome = videogn("train", *words, "trainer.fast_dev_run=true")
    assert outcome.status == 0, outcome.err
    assert [name for name, _ in taken] == ["training", "validation", "test"]
    assert outcome.err.endswith("fast_dev_run: training, validation and test take their steps; nothing was written\n")
    assert saved  # it was tried
    assert "; 5 steps an epoch; " in outcome.err  # of the training that it stands for
    taken.clear()
    outcome = videogn("train", *words, "trainer.overfit_batches=2", "epochs=3")
    assert outcome.status == 0, outcome.err
    assert [name for name, _ in taken] == ["training"] * 6
    assert [videos for _, videos in taken] == [videos for _, videos in taken[:2]] * 3
    assert re.search(r"overfit_batches=2: loss \d\.\d+, top1 \d\.\d+ in the last epoch; nothing was written\n$", outcome.err)
    assert outcome.out == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["simple", "pytorch"])
def test_a_profile_lies_in_the_run_folder(
    videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path, name: str
) -> None:
    words = [*tiny, f"dataset.root={trained.parent}/motion", "evaluation=one_clip", "report_videos=0", f"trainer.profiler={name}"]
    outcome = videogn("train", *words, f"out={tmp_path}/run")
    assert outcome.status == 0, outcome.err
    profile = (tmp_path / "run/fit-profile.txt").read_text()
    assert ("run_training_batch" if name == "simple" else "aten::convolution") in profile
    assert (tmp_path / "run/test-profile.txt").is_file()
