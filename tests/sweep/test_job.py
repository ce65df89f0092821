"""How far a job got, as its folder says, also while another process has it."""

from __future__ import annotations

import os
from pathlib import Path

from videogn.sweep.job import Job, State, named, varying


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
    (job.folder / "result.json").write_text('{"results": [], "timing": {}}')
    assert job.state() is State.DONE


def test_a_job_goes_on_with_what_may_have_moved(tmp_path: Path) -> None:
    """Its name is that of its content; workers and pages are no part of it. The rest is laid down in the checkpoint."""
    free = ["dataset.root=/new", "dataset.groups=g.csv", "num_workers=0", "report_videos=0"]
    job = Job(["norm=a", free[0], "dataset.split_seed=1", *free[1:], "sweep=s"], tmp_path)
    (job.folder / "checkpoint").mkdir()
    (job.folder / "checkpoint/last.ckpt").touch()
    assert job.arguments() == ["train", f"resume={tmp_path}", *free]


def test_one_job_of_an_experiment_is_no_multirun(tmp_path: Path) -> None:
    assert Job(["experiment=x"], tmp_path).arguments() == ["train", "experiment=x", "hydra.mode=RUN", f"out={tmp_path}"]


def test_a_job_is_called_by_what_varies(tmp_path: Path) -> None:
    jobs = [Job(["norm=a", "epochs=1", "seed=0"], tmp_path), Job(["norm=a", "conv=w", "epochs=1", "seed=1"], tmp_path)]
    assert varying(jobs) == ["seed", "conv"]
    assert [named(job, varying(jobs)) for job in jobs] == ["seed=0", "seed=1 conv=w"]
    assert named(jobs[0], varying(jobs[:1])) == "the only job"
