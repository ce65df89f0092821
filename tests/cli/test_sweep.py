"""A multirun as a user runs it, and what is left of it when it is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere jobs outlive a sweep that is killed, and hold their folders"
)
SECONDS = 120.0


@pytest.fixture
def base(tiny: Sequence[str], trained: Path) -> list[str]:
    return [sys.executable, "-m", "videogn", "train", *tiny, f"dataset.root={trained.parent}/motion"]


def wait(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited {SECONDS:.0f} s for {what}"
        time.sleep(0.05)


def pids(word: str, cwd: Path) -> list[int]:
    """Of the processes of this folder with this word in their command line: other tests run the same jobs elsewhere."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            place = (folder / "cwd").readlink()
        except OSError:
            continue
        if place == cwd.resolve() and any(word in one for one in words[1:]):
            found.append(int(folder.name))
    return found


def start(command: Sequence[str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoint/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.turns
def test_two_jobs_of_four_fail(base: Sequence[str], tmp_path: Path) -> None:
    """And the same command again tries those alone."""
    command = [*base, "norm=group_norm,batch_norm", "-m", "batch_size=4,21", "sweep=s"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("failed with status 2: videogn: error: batch_size=21 needs 21 clips") == 2
    assert done.stderr.splitlines()[-1].startswith("videogn: 2 of 4 jobs failed")
    assert done.stdout.count("done") == 2
    results = sorted(tmp_path.glob("runs/sweep/s/*/result.json"))
    assert len(results) == 2
    times = [path.stat().st_mtime_ns for path in results]
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert again.returncode == 1, again.stderr
    assert again.stderr.count("done before") == 2
    assert again.stderr.count("failed with status 2: videogn: error: batch_size=21 needs 21 clips") == 2
    assert [path.stat().st_mtime_ns for path in results] == times


@pytest.mark.turns
def test_a_sweep_that_is_killed_goes_on(base: Sequence[str], tmp_path: Path) -> None:
    """Its job saves and ends with it, and the same command ends with the weights of a job that nobody killed: also where the
    videos have moved."""
    *words, root = [*base[:-1], "seed=0", "epochs=12", base[-1]]
    places = [tmp_path / name for name in ("before", "after")]
    places[0].symlink_to(root.removeprefix("dataset.root="))
    sweep = start([*words, f"dataset.root={places[0]}", "-m", "sweep=s"], tmp_path)
    folder = tmp_path / "runs/sweep/s"
    wait(lambda: list(folder.glob("*/checkpoint/last.ckpt")), "a checkpoint")
    sweep.kill()
    _, err = sweep.communicate(timeout=SECONDS)
    wait(lambda: not pids("runs/sweep/s/", tmp_path), "the job's end")
    (run,) = folder.glob("*/")
    assert 0 < torch.load(run / "checkpoint/last.ckpt", weights_only=True)["global_step"] < 60, err
    assert not (run / "result.json").exists()
    assert not (run / "failure.json").exists()
    places[0].rename(places[1])
    words.append(f"dataset.root={places[1]}")
    command = [*words, "-m", "sweep=s"]
    for again in (command, [*words, "out=whole"]):
        done = subprocess.run(again, capture_output=True, text=True, cwd=tmp_path, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
    assert not places[0].exists(), "the videos are read where they lie now, and made nowhere else"
    assert "resumed: " in (run / "log.txt").read_text()
    other = weights(tmp_path / "whole")
    assert all(torch.equal(value, other[key]) for key, value in weights(run).items())


def test_cases_are_of_a_multirun(videogn: Callable) -> None:
    assert "cases: values of a multirun; add -m" in videogn("train", "cases=[{norm:batch_norm}]").refusal()


@pytest.mark.turns
def test_a_job_that_is_killed_is_named_at_once_and_the_others_go_on(base: Sequence[str], tmp_path: Path) -> None:
    command = [*base, "-m", "seed=0,1", "epochs=8", "sweep=s"]
    sweep = start(command, tmp_path)
    folder = tmp_path / "runs/sweep/s"
    wait(lambda: list(folder.glob("*/checkpoint/last.ckpt")), "a checkpoint")
    (victim,) = folder.glob("*/")
    for pid in pids(f"out=runs/sweep/s/{victim.name}", tmp_path):
        os.kill(pid, signal.SIGKILL)
    out, err = sweep.communicate(timeout=SECONDS)
    assert sweep.returncode == 1, err
    lines = err.splitlines()
    fallen = next(
        place for place, line in enumerate(lines) if line.startswith("job 1/2  failed with signal 9: killed; the last that")
    )
    assert any(line.startswith("job 2/2  seed=1") for line in lines[fallen:]), "it is named before the other begins"
    assert lines[-1].startswith("videogn: 1 of 2 jobs failed; the same command runs them again")
    assert "failed, signal 9" in out
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=SECONDS)
    assert again.returncode == 0, again.stderr
    assert "resumed: " in (victim / "log.txt").read_text()
    assert "job 2/2  seed=1  done before" in again.stderr


@pytest.mark.turns
def test_an_experiment_can_be_a_multirun(base: Sequence[str], tmp_path: Path) -> None:
    """Without -m; its jobs run as single trainings, here of two processes each, and the sweep has its name."""
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /norm: batch_norm\n"
        "cases:\n  - {batch_size: 4, clip_length: 4}\n  - {batch_size: 2, clip_length: 2}\n"
        "base_batch_size: 4\nbase_lr: 0.01\ntrainer: {accelerator: cpu, devices: 2}\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1'}}}\n"
    )
    few = [word for word in base if not word.startswith(("batch_size", "clip_length"))]
    done = subprocess.run([*few, "experiment=mine", "seed=3"], capture_output=True, text=True, cwd=tmp_path, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert "job 1/2  batch_size=4 clip_length=4  runs/sweep/mine/" in done.stderr
    configs = [file.read_text() for file in tmp_path.glob("runs/sweep/mine/*/config.yaml")]
    assert sorted(re.search(r"^batch_size: (\d)", text, re.M)[1] for text in configs) == ["2", "4"]  # pyright: ignore
    assert all("seed: 3" in text and "BatchNorm" in text for text in configs)
    logs = "".join(file.read_text() for file in tmp_path.glob("runs/sweep/mine/*/log.txt"))
    assert "8 clips a step; lr 0.02 = 0.01 x 8 / 4" in logs
    assert "4 clips a step; lr 0.01 = 0.01 x 4 / 4" in logs


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hydra.launcher.num_parallel=0"], r"hydra.launcher.num_parallel=0: give a whole number from 1 up"),
        (["hydra.launcher.time_limit_hours=-1"], r"hydra.launcher.time_limit_hours=-1: give hours above 0, or null"),
        (["cases=[3]"], r"cases=\[3\]: give a list of KEY: VALUE"),
        (["cases=[{batch_sise: 3}]"], r"batch_sise: no such key"),
        (["sweep=[a,b]"], r"sweep=\['a', 'b'\]: give the name of a folder under runs/sweep"),
        (["sweep=true"], r"sweep=True: give the name of a folder"),
        (["sweep=../a"], r"sweep=../a: give the name of a folder"),
        (["sweep=''"], r"sweep=: give the name of a folder"),
    ],
)
def test_bad_values_are_said_before_anything_runs(
    videogn: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.search(message, videogn("train", "-m", "seed=0,1", *overrides).refusal())
    assert list(tmp_path.iterdir()) == []


def test_jobs_that_differ_only_in_where_they_run_are_refused(
    videogn: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for label in ("run", "walk"):
        (tmp_path / "videos" / label).mkdir(parents=True)
    line = videogn("train", "-m", "trainer.devices=1,2", "dataset=class_folder", "dataset.root=videos").refusal()
    assert "dataset.root=videos: are one training; trainer.devices says where and how it runs" in line
    assert not (tmp_path / "runs").exists()
