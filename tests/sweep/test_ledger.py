"""Which jobs a sweep's folder says it has, over several commands."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from videogn.sweep import ledger as module
from videogn.sweep.job import Job, State
from videogn.sweep.ledger import keep_jobs, read_jobs, write_jobs
from videogn.types import InputError


def finish(*jobs: Job) -> None:
    for job in jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "result.json").write_text('{"results": [], "timing": {}}')


def test_it_keeps_what_was_begun(tmp_path: Path) -> None:
    """A job that was asked for by mistake and never began is not missed for ever."""
    done, never, new = (Job([f"seed={name}"], tmp_path / name) for name in ("done", "never", "new"))
    write_jobs(tmp_path, [done, never, done], "videogn train -m first")
    finish(done)
    write_jobs(tmp_path, [new], "videogn train -m second")
    ledger = read_jobs(tmp_path)
    assert ledger.command_line == "videogn train -m second"
    assert list(ledger.jobs) == [done, new]


def test_a_job_of_the_same_words_and_another_name_takes_the_place_of_the_older(tmp_path: Path) -> None:
    """One video was added, or the experiment's file was edited: three seeds are three repetitions, and not six."""
    older = [Job(["norm=a", f"seed={seed}", "num_workers=2"], tmp_path / f"old{seed}") for seed in range(3)]
    newer = [Job([f"seed={seed}", "norm=a"], tmp_path / f"new{seed}") for seed in range(2)]
    write_jobs(tmp_path, older, "first")
    finish(*older)
    write_jobs(tmp_path, newer, "second")
    assert list(read_jobs(tmp_path).jobs) == [older[2], *newer]
    assert all(job.state() is State.DONE for job in older), "their folders stay"


def test_two_commands_in_one_folder_keep_each_others_jobs(tmp_path: Path) -> None:
    """In two terminals: what runs, what waits in a queue, and what has not begun yet when the other one writes."""
    running, queued, later, other = (Job([f"seed={name}"], tmp_path / name) for name in ("running", "queued", "later", "other"))
    first = [running, queued, later]
    write_jobs(tmp_path, first, "first")
    assert running.lock() is not None
    queued.folder.mkdir()
    write_jobs(tmp_path, [other], "second")
    assert list(read_jobs(tmp_path).jobs) == [running, queued, other]
    finish(*first)
    keep_jobs(tmp_path, first)
    ledger = read_jobs(tmp_path)
    assert {job.folder.name for job in ledger.jobs} == {"running", "queued", "later", "other"}
    assert ledger.command_line == "second"


def test_a_command_that_ends_late_displaces_no_newer_job(tmp_path: Path) -> None:
    old, new = Job(["seed=0"], tmp_path / "old"), Job(["seed=0"], tmp_path / "new")
    write_jobs(tmp_path, [old], "first")
    write_jobs(tmp_path, [new], "second")
    finish(old, new)
    keep_jobs(tmp_path, [old])
    assert list(read_jobs(tmp_path).jobs) == [new]


def test_two_that_write_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads what the other has written, or is read by it."""
    jobs = [Job([f"seed={seed}"], tmp_path / str(seed)) for seed in range(8)]
    finish(*jobs)
    write_jobs(tmp_path, [], "none")
    together, read = threading.Barrier(len(jobs)), module.read_jobs

    def slow(folder: Path) -> module.Ledger:
        found = read(folder)
        threading.Event().wait(0.02)
        return found

    monkeypatch.setattr(module, "read_jobs", slow)

    def write(job: Job) -> None:
        together.wait()
        write_jobs(tmp_path, [job], "x")

    threads = [threading.Thread(target=write, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read(tmp_path).jobs) == len(jobs)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"command_line": "x", "jobs": [{"id": "../a", "overrides": []}]}',
        '{"command_line": "x", "jobs": [{"id": "..", "overrides": []}]}',
        '{"command_line": "x", "jobs": [{"id": 3}]}',
    ],
)
def test_a_damaged_ledger_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "jobs.json").write_text(content)
    with pytest.raises(
        InputError,
        match=r"jobs.json: cannot be read as the jobs of a sweep \(\w+\); delete it, and run the sweep's command again",
    ):
        read_jobs(tmp_path)


def test_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no jobs.json in it; give the folder of a sweep, runs/sweep/NAME"):
        read_jobs(tmp_path)
