"""How far a job got, as its folder says, also while another process has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videogn.sweep.job import Job, State, named, varying
from videogn.sweep.ledger import read_jobs, write_jobs
from videogn.types import InputError


def test_states_in_the_order_of_a_life(tmp_path: Path) -> None:
    job = Job(["seed=1"], tmp_path / "a")
    assert job.state() is State.MISSING
    lock = job.lock()
    assert lock is not None
    assert job.state() is State.RUNNING
    assert job.lock() is None
    os.close(lock)
    assert job.state() is State.MISSING
    assert job.arguments() == ["train", "seed=1", f"out={tmp_path}/a"]
    (job.folder / "checkpoint").mkdir()
    (job.folder / "checkpoint/last.ckpt").touch()
    assert job.state() is State.INTERRUPTED
    assert job.arguments() == ["train", f"resume={tmp_path}/a"]
    job.fail(-9, "killed")
    assert job.state() is State.FAILED
    assert job.failure() == {"status": -9, "message": "killed"}
    job.begin()
    assert job.state() is State.INTERRUPTED
    (job.folder / "result.json").write_text('{"results": []')  # as a full disk would leave it
    assert job.state() is State.INTERRUPTED
    (job.folder / "result.json").write_text('{"results": []}')
    assert job.state() is State.DONE


def test_one_job_of_an_experiment_is_no_multirun(tmp_path: Path) -> None:
    assert Job(["experiment=x"], tmp_path).arguments() == ["train", "experiment=x", "hydra.mode=RUN", f"out={tmp_path}"]


def test_a_job_is_called_by_what_varies(tmp_path: Path) -> None:
    jobs = [Job(["norm=a", "epochs=1", "seed=0"], tmp_path), Job(["norm=a", "conv=w", "epochs=1", "seed=1"], tmp_path)]
    assert varying(jobs) == ["seed", "conv"]
    assert [named(job, varying(jobs)) for job in jobs] == ["seed=0", "seed=1 conv=w"]
    assert named(jobs[0], varying(jobs[:1])) == "the only job"


def test_the_ledger_keeps_what_was_done(tmp_path: Path) -> None:
    """A job that was asked for by mistake and never ran is not missed for ever."""
    done, never, new = (Job([f"seed={name}"], tmp_path / name) for name in ("done", "never", "new"))
    write_jobs(tmp_path, [done, never, done], "videogn train -m first")
    done.folder.mkdir()
    (done.folder / "result.json").write_text("{}")
    write_jobs(tmp_path, [new], "videogn train -m second")
    ledger = read_jobs(tmp_path)
    assert ledger.command_line == "videogn train -m second"
    assert list(ledger.jobs) == [done, new]


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"command_line": "x", "jobs": [{"id": "../a", "overrides": []}]}', '{"command_line": "x", "jobs": [{"id": 3}]}'],
)
def test_a_damaged_ledger_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "jobs.json").write_text(content)
    with pytest.raises(
        InputError, match=r"jobs.json: cannot be read as the jobs of a sweep \(\w+\); run the sweep's command again"
    ):
        read_jobs(tmp_path)


def test_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no jobs.json in it; give the folder of a sweep, runs/sweep/NAME"):
        read_jobs(tmp_path)
