"""The launcher of processes, with a program in the place of a training that does as the job's folder says."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from videogn.sweep import launcher
from videogn.sweep.job import TOLD_TO_END, Job, State
from videogn.sweep.launcher import ProcessLauncher
from videogn.sweep.run import run_jobs
from videogn.types import Findings, InputError, Stopped

# Saves on SIGTERM and SIGINT, as a training does; `stubborn` does not.
PROGRAM = """
import json, os, pathlib, signal, sys, time
words = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
folder = pathlib.Path(words.get("out") or words["resume"])
resumed = "resume" in words
def save(signum, frame):
    (folder / "checkpoint").mkdir(exist_ok=True)
    (folder / "checkpoint/last.ckpt").touch()
    print("saved", flush=True)
    sys.exit(128 + signum)
for signum in (signal.SIGTERM, signal.SIGINT):
    signal.signal(signum, signal.SIG_IGN if words.get("does") == "stubborn" else save)
(folder / "started").write_text(str(time.monotonic()))
seen = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "VIDEOGN_PARENT")
(folder / "sees").write_text(" ".join(os.environ.get(key, "-") for key in seen))
if words.get("does") in ("wait", "stubborn") and not resumed:
    time.sleep(60)
if words.get("does") == "fail":
    print("what came, the rule, the remedy")
    sys.exit(2)
if words.get("does") == "nothing":
    sys.exit(0)
time.sleep(float(words.get("seconds", 0)))
metrics = {"top1": 0.5, "loss": 1.0}
result = {"results": [{"name": "ten_clip", "metrics": metrics}], "timing": {"total_seconds": 1.0}}
(folder / "result.json").write_text(json.dumps(result))
(folder / "ended").write_text(str(time.monotonic()))
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setattr(launcher, "_PROGRAM", (sys.executable, str(tmp_path / "program.py")))


def jobs(folder: Path, *words: str) -> list[Job]:
    return [Job([f"does={word}" if "=" not in word else word, f"number={n}"], folder / str(n)) for n, word in enumerate(words)]


def tell_when_started(job: Job, signum: signal.Signals, times: int = 1) -> threading.Thread:
    """Send a signal to this process once the job runs, as a terminal or SLURM would."""

    def tell() -> None:
        while not (job.folder / "started").exists():
            time.sleep(0.01)
        for _ in range(times):
            os.kill(os.getpid(), signum)
            time.sleep(0.3)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    return thread


def spans(of: Sequence[Job]) -> list[tuple[float, float]]:
    return sorted((float((job.folder / "started").read_text()), float((job.folder / "ended").read_text())) for job in of)


def test_one_after_the_other_and_two_at_a_time(tmp_path: Path) -> None:
    one = jobs(tmp_path / "one", "seconds=0.3", "seconds=0.3")
    run_jobs(ProcessLauncher(), one)
    (_, end), (begin, _) = spans(one)
    assert end < begin
    two = jobs(tmp_path / "two", "seconds=2", "seconds=2", "seconds=0")
    run_jobs(ProcessLauncher(num_parallel=2), two)
    (_, first_end), (second, _), (third, _) = spans(two)
    assert second < first_end
    assert third > first_end, "a third begins only when a place is free"


def test_a_failing_job_is_named_at_once_and_the_others_go_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    of = jobs(tmp_path, "fail", "seconds=0", "nothing")
    with pytest.raises(Findings, match=r"2 of 3 jobs failed; the same command runs them again and skips what is done"):
        run_jobs(ProcessLauncher(), of)
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert lines[1].startswith("job 1/3  failed with status 2: what came, the rule, the remedy, ")
    assert lines[3].startswith("job 2/3  done, ten_clip top-1 50.0%, ")
    assert lines[5].startswith("job 3/3  failed with status 0: ended without a result: ")
    assert [job.state() for job in of] == [State.FAILED, State.DONE, State.FAILED]
    assert out.count("failed, status 2") == 1
    ended = (of[1].folder / "ended").read_text()
    with pytest.raises(Findings):
        run_jobs(ProcessLauncher(), of)
    assert (of[1].folder / "ended").read_text() == ended
    assert "done before" in capfd.readouterr().err.splitlines()[2]
    assert (of[0].folder / "log.txt").read_text().count("the remedy") == 2


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_jobs_once_and_waits_for_them(
    tmp_path: Path, signum: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    of = jobs(tmp_path, "wait", "seconds=0")
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    thread = tell_when_started(of[0], signum)
    with pytest.raises(Stopped, match="the sweep; the same command goes on with it") as stopped:
        run_jobs(ProcessLauncher(), of)
    thread.join()
    assert stopped.value.signum == signum
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    assert (of[0].folder / "log.txt").read_text() == "saved\n"
    assert [job.state() for job in of] == [State.INTERRUPTED, State.MISSING]
    assert "job 1/2  stopped, " in capfd.readouterr().err
    run_jobs(ProcessLauncher(), of)
    assert [job.state() for job in of] == [State.DONE, State.DONE]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_next_job_is_made_begins_none(tmp_path: Path, signum: signal.Signals) -> None:
    """A search takes a second to propose and compose a trial."""
    of = jobs(tmp_path, "seconds=0", "wait")

    def made() -> Iterator[Job]:
        yield of[0]
        os.kill(os.getpid(), signum)
        yield of[1]

    with pytest.raises(Stopped):
        ProcessLauncher().run(made(), print, lambda job, seconds: None)
    assert [job.state() for job in of] == [State.DONE, State.MISSING]


def test_a_signal_while_a_job_begins_reaches_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is there, and we do not know it yet."""
    (job,) = of = jobs(tmp_path, "wait")
    begin = subprocess.Popen

    def told(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = begin(*arguments, **options)
        while not (job.folder / "started").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        return process

    monkeypatch.setattr(subprocess, "Popen", told)
    with pytest.raises(Stopped):
        run_jobs(ProcessLauncher(), of)
    assert (job.folder / "log.txt").read_text() == "saved\n"


def test_a_job_that_cannot_begin_is_named_and_the_others_go_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    of = jobs(tmp_path, "seconds=0", "seconds=0")
    (of[0].folder / "log.txt").mkdir(parents=True)  # as one that is another user's, it opens for nobody
    descriptors = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    with pytest.raises(Findings, match="1 of 2 jobs failed"):
        run_jobs(ProcessLauncher(), of)
    assert "job 1/2  failed with status 1: cannot begin: Is a directory, 0 s" in capfd.readouterr().err
    assert [job.state() for job in of] == [State.FAILED, State.DONE]
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == descriptors, "the failed one holds its folder no longer"


def test_a_folder_that_cannot_be_held_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The one is a file system of no locks, which concerns all jobs; the other is told, though it cannot be written down."""
    (tmp_path / "file").touch()
    with pytest.raises(Findings, match="1 of 1 jobs failed"):
        run_jobs(ProcessLauncher(), jobs(tmp_path / "file", "seconds=0"))
    assert "/file/0: cannot begin: Not a directory" in capfd.readouterr().err

    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(InputError, match=r"\.lock: cannot be held: No locks available; .*file system that knows flock"):
        run_jobs(ProcessLauncher(), jobs(tmp_path, "seconds=0"))


def test_a_job_over_its_time_saves_and_goes_on_the_next_time(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (job,) = of = jobs(tmp_path, "wait")
    short = ProcessLauncher(time_limit_hours=3 / 3600)
    with pytest.raises(Findings):
        run_jobs(short, of)
    assert "failed with status 143: over its time limit of 3 s; the same command goes on with it" in capfd.readouterr().err
    assert job.state() is State.FAILED
    run_jobs(short, of)
    assert job.state() is State.DONE


def test_a_job_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_GRACE_SECONDS", 0.5)
    (job,) = of = jobs(tmp_path, "stubborn")
    with pytest.raises(Findings):
        run_jobs(ProcessLauncher(time_limit_hours=3 / 3600), of)
    failure = job.failure()
    assert failure is not None
    # It is not over: a search does not count it as a trial that failed.
    assert failure["status"] == TOLD_TO_END
    assert failure["message"] == "over its time limit of 3 s, and killed by signal 9; the same command goes on with it"


def test_a_job_that_another_process_holds_is_waited_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    held, free = of = jobs(tmp_path, "seconds=0", "seconds=0")
    lock = held.lock()
    assert lock is not None

    def leave() -> None:
        while not (free.folder / "ended").exists():
            time.sleep(0.01)
        os.close(lock)

    threading.Thread(target=leave, daemon=True).start()
    run_jobs(ProcessLauncher(), of)
    assert "another process runs it; waiting for it at the end" in capfd.readouterr().err
    assert float((held.folder / "started").read_text()) > float((free.folder / "ended").read_text())


def test_the_cores_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    of = jobs(tmp_path, "seconds=0", "seconds=0", "seconds=0")
    run_jobs(ProcessLauncher(num_parallel=3), of)
    assert [(job.folder / "sees").read_text() for job in of] == [f"2 - {os.getpid()}"] * 3


@pytest.mark.parametrize(
    ("visible", "num_parallel", "places"),
    [
        (None, 2, ["0,1", "2,3"]),
        (None, 4, ["0", "1", "2", "3"]),
        (None, 3, ["0", "1", "2"]),
        ("5,7", 2, ["5", "7"]),
        ("5,7", 4, ["5", "7", "5", "7"]),
        ("GPU-a,GPU-b", 1, [None]),
    ],
)
def test_the_gpus_are_divided(
    visible: str | None, num_parallel: int, places: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four GPUs, or those that CUDA_VISIBLE_DEVICES names; a single job sees what this process sees."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [place.get("CUDA_VISIBLE_DEVICES") for place in launcher._environments(num_parallel)] == places


def test_without_a_gpu_that_is_seen_the_cores_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert launcher._environments(2) == [{"OMP_NUM_THREADS": "3"}] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_parallel": 0}, r"hydra.launcher.num_parallel=0: give a whole number from 1 up"),
        ({"time_limit_hours": -1.0}, r"hydra.launcher.time_limit_hours=-1.0: give hours above 0, or null"),
    ],
)
def test_bad_values(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ProcessLauncher(**arguments)
