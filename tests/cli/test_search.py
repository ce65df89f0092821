"""A search as a user runs it, with a program in the place of a training that scores what it was told."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from videogn.cli.swept import swept
from videogn.configuration import compose, resolved
from videogn.sweep import launcher
from videogn.sweep.grid import job_of
from videogn.sweep.job import Job
from videogn.sweep.ledger import read_jobs
from videogn.sweep.metric import METRICS, Metric, diverged

pytest.importorskip("optuna", reason="pip install 'videogn[search]'")

# val/top1 is best at base_lr=0.1, and its last epoch is not its best; what the test says is the opposite. `steps` seconds long,
# it saves on SIGTERM and goes on from there. `limit` is the base_lr above which it is no training.
PROGRAM = """
import ctypes, json, math, os, pathlib, signal, sys, time
words = dict(word.split("=", 1) for word in sys.argv[2:])
folder = pathlib.Path(words.get("out") or words["resume"])
kept = folder / "checkpoint/last.ckpt"
words = json.loads(kept.read_text()) if "resume" in words else words
with open("started", "a") as file:
    file.write(f"{folder.name} {'again' if kept.exists() else 'first'} {json.dumps(words)}\\n")
kept.parent.mkdir(parents=True, exist_ok=True)
def save(signum, frame):
    kept.write_text(json.dumps(words))
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # told when the search is killed, as a training is
lr = float(words["base_lr"])
if lr > float(os.environ.get("DIVERGES", "inf")):
    (folder / "metrics.csv").write_text("epoch,train/loss_step,val/top1,val/loss\\n0,2.0,0.9,0.1\\n1,nan,,\\n")
    print("diverged at step 2")
    sys.exit(1)
time.sleep(float(os.environ.get("SECONDS", 0)))
if lr > float(os.environ.get("LIMIT", "inf")):
    print("what came, the rule, the remedy")
    sys.exit(2)
if os.environ.get("KILLED"):
    os.kill(os.getpid(), signal.SIGKILL)
score = 1 - abs(math.log10(lr) + 1) / 4 - (words["norm"] != "group_norm") / 4
rows = [(0, score / 2), (1, score * 1.1), (2, score)]
text = "epoch,val/top1,val/loss\\n" + "".join(f"{epoch},{value},{-math.log(value)}\\n" for epoch, value in rows)
(folder / "metrics.csv").write_text("epoch\\n0\\n" if os.environ.get("BARE") else text)
result = {"results": [{"name": "ten_clip", "metrics": {"top1": 1 - score, "loss": 1.0}}], "timing": {"total_seconds": 1.0}}
(folder / "result.json").write_text(json.dumps(result))
"""
EXPERIMENT = """# @package _global_
defaults:
  - override /dataset: class_folder
  - override /logger: csv
base_batch_size: 8
search:
  _target_: videogn.sweep.search.Search
  space:
    base_lr: {low: 0.001, high: 1.0, log: true}
    norm: {choices: [group_norm, batch_norm]}
  num_trials: 6
  metric: val/top1
  epoch: last
  direction: null
  sampler: tpe
  seed: 0
  num_startup_trials: 2
hydra:
  mode: MULTIRUN
"""
DRIVER = """
import sys
from videogn.cli.main import main
from videogn.sweep import launcher
launcher._PROGRAM = (sys.executable, "program.py")
main(sys.argv[1:])
"""
WORDS = ("train", "experiment=mine", "dataset.root=videos")


def lay(folder: Path) -> None:
    (folder / "conf/experiment").mkdir(parents=True)
    (folder / "conf/experiment/mine.yaml").write_text(EXPERIMENT)
    (folder / "program.py").write_text(PROGRAM)
    (folder / "driver.py").write_text(DRIVER)
    for label in ("run", "walk"):
        (folder / "videos" / label).mkdir(parents=True)
        (folder / "videos" / label / "1.mp4").touch()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lay(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launcher, "_PROGRAM", (sys.executable, str(tmp_path / "program.py")))
    monkeypatch.setattr(launcher, "_POLL_SECONDS", 0.01)
    return tmp_path / "runs/sweep/mine"


def started() -> list[list[str]]:
    """Of every program that ran: its folder, `first` or `again`, its words."""
    return [line.split(" ", 2) for line in Path("started").read_text().splitlines()]


def scores(folder: Path) -> list[float]:
    """The last val/top1 of every job of jobs.json, read anew."""
    found = []
    for job in read_jobs(folder).jobs:
        with (job.folder / "metrics.csv").open() as file:
            found.append(float(list(csv.DictReader(file))[-1]["val/top1"]))
    return found


def test_a_search_and_the_same_command_again(videogn: Callable, place: Path) -> None:
    done = videogn(*WORDS)
    assert done.status == 0, done.err
    content = json.loads((place / "search.json").read_text())
    assert len(started()) == len(content["trials"]) == len(read_jobs(place).jobs) == 6
    assert [trial["value"] for trial in content["trials"]] == scores(place)
    assert [job.folder.name for job in read_jobs(place).jobs] == [trial["id"] for trial in content["trials"]]
    assert content["best"]["trial"] == 1 + scores(place).index(max(scores(place)))
    rows = [line.split("│")[1:-1] for line in done.out.splitlines() if line.startswith("│")]
    assert [row[-2].strip() for row in rows] == [f"{score:.1%}" for score in sorted(scores(place), reverse=True)]
    again = videogn(*WORDS)
    assert again.status == 0
    assert again.out == done.out
    assert len(started()) == 6
    assert [line.endswith("  done before") for line in again.err.splitlines()] == [True] * 6
    more = videogn(*WORDS, "search.num_trials=8")
    assert more.status == 0
    assert more.err.count("done before") == 6
    assert json.loads((place / "search.json").read_text())["trials"][:6] == content["trials"]
    assert len(started()) == 8


def test_the_words_of_the_best_are_one_training_with_its_values(videogn: Callable, place: Path) -> None:
    """They compose to the configuration that has the best's name."""
    out = videogn(*WORDS, "search.num_trials=3", "search.sampler=random").out
    command, subcommand, *words = shlex.split(out.splitlines()[-1])
    assert (command, subcommand) == ("videogn", "train")
    assert "hydra.mode=RUN" in words
    assert not any(word.startswith("search.") for word in words)
    content = json.loads((place / "search.json").read_text())
    best = content["trials"][content["best"]["trial"] - 1]
    config = compose("train", [f"hydra.searchpath=[file://{Path.cwd()}/conf]", *words])
    assert job_of(config, words, place).folder.name == best["id"]
    assert resolved(config)["base_lr"] == float(best["values"]["base_lr"])


def test_the_best_epoch_and_the_loss(videogn: Callable, place: Path) -> None:
    assert videogn(*WORDS, "search.num_trials=3", "search.epoch=best", "sweep=best").status == 0
    best, loss = place.parent / "best", place.parent / "loss"
    trials = json.loads((best / "search.json").read_text())["trials"]
    assert [trial["value"] for trial in trials] == pytest.approx([1.1 * score for score in scores(best)])
    assert videogn(*WORDS, "search.num_trials=3", "search.metric=val/loss", "sweep=loss").status == 0
    content = json.loads((loss / "search.json").read_text())
    assert [trial["value"] for trial in content["trials"]] == pytest.approx([-math.log(score) for score in scores(loss)])
    assert content["best"]["trial"] == 1 + scores(loss).index(max(scores(loss)))


def test_values_that_are_proposed_twice_are_trained_once(videogn: Callable, place: Path) -> None:
    """Also when two trials at a time have them: there are two values, and six trials."""
    done = videogn(*WORDS, "base_lr=0.1", "hydra.launcher.num_parallel=3")
    assert done.status == 0, done.err
    trials = json.loads((place / "search.json").read_text())["trials"]
    assert len(trials) == 6
    assert sorted({folder for folder, *_ in started()}) == sorted({trial["id"] for trial in trials})
    assert len(started()) == 2
    assert all(trial["value"] == (1.0 if trial["values"]["norm"] == "group_norm" else 0.75) for trial in trials)
    assert "base_lr" not in trials[0]["values"], "the command line gives it"


def test_through_a_queue_one_by_one(videogn: Callable, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher takes no trial ahead of those before it, and what it cannot run is told."""
    pytest.importorskip("submitit", reason="pip install 'videogn[slurm]'")
    from videogn.sweep import submitit

    monkeypatch.setattr(submitit, "_PROGRAM", launcher._PROGRAM)
    monkeypatch.setattr(submitit, "_POLL_SECONDS", 0.05)
    repository = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([repository, os.environ.get("PYTHONPATH", "")]))
    queue = ("hydra/launcher=submitit", "hydra.launcher.cluster=local", "hydra.launcher.max_parallel=1")
    done = videogn(*WORDS, "search.num_trials=4", *queue)
    assert done.status == 0, done.err
    inside = json.loads((place / "search.json").read_text())
    assert videogn(*WORDS, "search.num_trials=4", "sweep=processes").status == 0
    outside = json.loads((place.parent / "processes/search.json").read_text())
    assert [trial["id"] for trial in inside["trials"]] == [trial["id"] for trial in outside["trials"]]
    assert "trainer.devices" not in done.out, "no value of a trial"


def test_a_trial_that_fails_is_named_and_counts(videogn: Callable, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMIT", "0.1")
    done = videogn(*WORDS)
    assert done.status == 1
    content = json.loads((place / "search.json").read_text())
    failed = [trial for trial in content["trials"] if trial["state"] == "failed"]
    assert failed
    assert failed == [trial for trial in content["trials"] if float(trial["values"]["base_lr"]) > 0.1]
    assert len(content["trials"]) == 6
    assert "failed with status 2: what came, the rule, the remedy, " in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith(
        f"videogn: {len(failed)} of 6 trials failed; they count as trials, and what they printed is in log.txt"
    )
    assert done.out.count("failed, status 2") == len(failed)
    again = videogn(*WORDS)
    assert again.status == 1
    assert again.err.splitlines()[-1] == last
    assert len(started()) == 6


@pytest.mark.turns
@pytest.mark.parametrize(("variable", "message"), [("KILLED", "failed with signal 9: "), ("BARE", "metrics.csv has no val/top1")])
def test_where_all_fail_no_more_are_begun(
    videogn: Callable, place: Path, monkeypatch: pytest.MonkeyPatch, variable: str, message: str
) -> None:
    monkeypatch.setenv(variable, "1")
    done = videogn(*WORDS)
    assert done.status == 1
    assert done.err.count(message) == 3
    assert "3 trials have ended and all have failed: no more are begun" in done.err
    monkeypatch.delenv(variable)
    mended = videogn(*WORDS)
    assert "3 of 6 trials failed" in mended.err
    assert [trial["state"] for trial in json.loads((place / "search.json").read_text())["trials"]] == ["failed"] * 3 + [
        "done"
    ] * 3


def test_a_trial_over_its_time_limit_goes_on(videogn: Callable, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDS", "4")
    done = videogn(*WORDS, "search.num_trials=1", f"hydra.launcher.time_limit_hours={2 / 3600}")
    assert done.status == 1
    assert done.err.splitlines()[-1] == "videogn: 1 of 1 trials are not over; the same command goes on with them"
    monkeypatch.setenv("SECONDS", "0")
    assert videogn(*WORDS, "search.num_trials=1").status == 0
    assert [which for _, which, _ in started()] == ["first", "again"]


@pytest.mark.turns
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere jobs outlive a search that is killed, and hold their folders")
def test_killed_again_and_again_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """Its trials are those of a search that nobody killed, and none is trained twice from the beginning."""
    ends = {}
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        lay(folder)
        command = [sys.executable, "driver.py", *WORDS]
        environment = {**os.environ, "SECONDS": "0.5"}
        rng = random.Random(0)
        kills = 0
        while True:
            search = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            if name == "killed" and kills < 4:
                kills += 1
                wait_for_lines(folder / "started", kills, search)
                time.sleep(rng.random() * 0.6)
                search.send_signal(signal.SIGKILL)
            _, err = search.communicate(timeout=120)
            if search.returncode >= 0:
                assert search.returncode == 0, err
                break
        content = json.loads((folder / "runs/sweep/mine/search.json").read_text())
        ends[name] = [(trial["id"], trial["values"], trial["state"], trial["value"]) for trial in content["trials"]]
        runs = [line.split(" ", 2)[:2] for line in (folder / "started").read_text().splitlines()]
        assert sorted(run for run, which in runs if which == "first") == sorted(run for run, *_ in ends[name])
        assert len(runs) > 6 or name == "whole"
    assert ends["killed"] == ends["whole"]


def wait_for_lines(path: Path, number: int, process: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while not path.exists() or len(path.read_text().splitlines()) < number:
        assert time.monotonic() < end
        if process.poll() is not None:
            return
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+search.space.base_lrr={low: 1, high: 2}"], "base_lrr: no such key or group in conf/train.yaml; nearest: base_lr"),
        (["search.space.norm.choices=[group_norm,grup_norm]"], "norm=grup_norm: not one of .*nearest: group_norm"),
        (["search.space.base_lr.low=2"], "search.space.base_lr: low=2 and high=1.0; low must be below high"),
        (["search.space.base_lr.low=-1", "search.space.base_lr.log=false"], "base_lr=-1.0: give a number above 0"),
        (["search.metric=test/top1"], "search.metric=test/top1: use one of val/top1, val/loss"),
        (["search.epoch=first"], "search.epoch=first: use one of last, best"),
        (["search.direction=up"], "search.direction=up: use one of maximize, minimize"),
        (["search.sampler=grid"], "search.sampler=grid: use one of tpe, random"),
        (["search.num_trials=0"], "search.num_trials=0: give a whole number from 1 up"),
        (["search.num_trials=x"], "Search: num_trials=x; give a whole number"),
        (["search.seed=-1"], "search.seed=-1: give a whole number from 0 up"),
        (["search.tries=3"], "search.tries: no such key"),
        (["seed=0,1"], "search: and 2 combinations of other values; what varies stands in search.space alone"),
        (["base_lr=0.1", "norm=group_norm"], "search.space: the command line gives base_lr, norm; leave a key to the search"),
        (["logger=tensorboard"], "search: reads metrics.csv of its trials, and no logger writes it; give logger=csv"),
        (["hydra/launcher=basic"], "search: only our launchers say how a job ended; use hydra/launcher=process or submitit"),
        (["search=3"], "search: give _target_: videogn.sweep.search.Search and its keys"),
        (["~search._target_"], "search: give _target_: videogn.sweep.search.Search and its keys"),
    ],
)
def test_what_is_refused_before_anything_is_written(videogn: Callable, place: Path, words: Sequence[str], message: str) -> None:
    refusal = videogn(*WORDS, *words).refusal()
    assert re.search(message, refusal), refusal
    assert not place.parent.exists()


def test_keys_that_go_together_in_no_training_are_refused(videogn: Callable, place: Path) -> None:
    """Each alone does; batch norm has no groups."""
    text = Path("conf/experiment/mine.yaml").read_text()
    Path("conf/experiment/mine.yaml").write_text(
        text.replace("  num_trials", "    norm.num_groups: {choices: [1, 2]}\n  num_trials", 1)
    )
    assert (
        "num_groups: no such key or group in conf/train.yaml; what is chosen for its group has none" in videogn(*WORDS).refusal()
    )
    assert not place.parent.exists()


def test_a_search_is_a_multirun(videogn: Callable, place: Path) -> None:
    text = Path("conf/experiment/mine.yaml").read_text()
    Path("conf/experiment/mine.yaml").write_text(text.replace("hydra:\n  mode: MULTIRUN\n", ""))
    assert "search: is a multirun; add -m, or hydra.mode=RUN for one training" in videogn(*WORDS).refusal()
    assert videogn(*WORDS, "-m", "search.num_trials=1").status == 0


def test_another_space_in_the_same_folder(videogn: Callable, place: Path) -> None:
    assert videogn(*WORDS, "search.num_trials=1").status == 0
    for word, what in (("search.space.base_lr.low=0.01", "space"), ("epochs=3", "set of fixed values, data or version")):
        refusal = videogn(*WORDS, word).refusal()
        assert (
            f"runs/sweep/mine/journal.log: the journal of a search with another {what}; name this one with sweep=NAME" in refusal
        )
    assert videogn(*WORDS, "epochs=3", "search.num_trials=1", "sweep=three", "num_workers=1").status == 0


def test_without_optuna(videogn: Callable, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert videogn(*WORDS).refusal() == "videogn: error: search: needs Optuna; pip install 'videogn[search]'"
    assert not place.parent.exists()


def test_the_metrics_of_a_training_are_read(trained: Path) -> None:
    """Not only those of a program in its place."""
    rows = list(csv.DictReader((trained / "metrics.csv").read_text().splitlines()))
    for name in METRICS:
        (last,) = [row[name] for row in rows if row[name]]
        assert Metric(name, "last", True).read(trained) == float(last)


def test_a_trial_that_diverged_counts_as_the_worst(videogn: Callable, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what it ended with, and not by the epoch before; that a whole search diverges does not end it early."""
    monkeypatch.setenv("DIVERGES", "0.0")
    done = videogn(*WORDS)
    assert done.status == 0, done.err
    assert "failed with status 1: diverged at step 2" in done.err
    content = json.loads((place / "search.json").read_text())
    assert [(trial["state"], trial["value"]) for trial in content["trials"]] == [("done", None)] * 6
    assert content["best"] is None
    assert done.out.count("diverged") == 6
    monkeypatch.delenv("DIVERGES")
    assert videogn(*WORDS, "search.num_trials=7").status == 0
    assert len(started()) == 7  # none of those was tried again
    assert json.loads((place / "search.json").read_text())["best"]["trial"] == 7


def test_a_training_that_diverges_in_its_second_epoch(
    videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path
) -> None:
    """One line, status 1, the checkpoint of before, and a mark for the search; the report of a sweep has val as it was."""
    steep = ["schedule=multi_step", "schedule.milestones=[0.5]", "schedule.gamma=1e30"]
    words = [*tiny, f"dataset.root={trained.parent}/motion", "epochs=2", *steep]
    done = videogn("train", *words, f"out={tmp_path}/run")
    assert done.status == 1
    (line,) = [line for line in done.err.splitlines() if "diverged" in line]
    assert done.err.endswith(f"{line}\n")
    assert re.match(
        r"videogn: diverged at step [67], epoch 2, lr 5e\+28: the loss is nan of .*; every clip .*last.ckpt is of before", line
    )
    kept = torch.load(tmp_path / "run/checkpoint/last.ckpt", weights_only=True)
    assert kept["global_step"] == 5
    assert not (tmp_path / "run/result.json").exists()
    assert diverged(tmp_path / "run")
    assert not diverged(trained)
    loss = Metric("val/loss", "last", False).read(tmp_path / "run")
    assert swept(Job(words, tmp_path / "run")).validation["loss"] == loss


def test_a_training_that_diverged_may_go_on(videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    """With stop_when_diverged=false: val loss is then no number, in which the metric does not take the one before for it."""
    words = [*tiny, f"dataset.root={trained.parent}/motion", "report_videos=0", "schedule=constant", "optimizer.lr=1e30"]
    done = videogn("train", *words, "stop_when_diverged=false", f"out={tmp_path}/run")
    assert done.status == 0, done.err
    assert math.isnan(Metric("val/loss", "last", False).read(tmp_path / "run") or 0)
    assert set(swept(Job(words, tmp_path / "run")).validation) == {"top1"}


def test_optuna_is_imported_for_a_search_alone() -> None:
    code = "import sys, videogn.cli.train, videogn.sweep.search; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
