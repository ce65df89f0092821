"""What a sweep says of its jobs, with a launcher that ends each as it is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from videogn.sweep.job import Job, State
from videogn.sweep.run import run_jobs
from videogn.types import Findings

RESULT = {"results": [{"name": "ten_clip", "metrics": {"top1": 0.5, "loss": 1.0}}], "timing": {"total_seconds": 3.0}}


class Ending:
    """Ends jobs one after the other, each with a status."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = iter(statuses)
        self.begun: list[str] = []

    def run(self, jobs: Iterator[Job], say: Callable[[str], None], ended: Callable[[Job, float], None]) -> None:
        for job in jobs:
            self.begun.append(job.folder.name)
            job.folder.mkdir(parents=True, exist_ok=True)
            job.begin()
            status = next(self.statuses)
            if status:
                job.fail(status, "a reason")
            else:
                (job.folder / "result.json").write_text(json.dumps(RESULT))
            ended(job, 1.0)


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    return [Job([f"seed={seed}"], tmp_path / str(seed)) for seed in range(5)]


@pytest.mark.parametrize(
    ("statuses", "num_begun"),
    [((2, 2, 2, 2, 2), 3), ((1, 2, 2, 2, 2), 5), ((0, 2, 2, 2, 2), 5), ((2, 2, 1, 2, 2), 5), ((-9, 1, 1, 1, 1), 5)],
)
def test_what_the_first_three_are_refused_for_ends_the_sweep(
    jobs: list[Job], statuses: tuple[int, ...], num_begun: int, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = Ending(*statuses)
    with pytest.raises(Findings) as raised:
        run_jobs(launcher, jobs)
    assert launcher.begun == [str(seed) for seed in range(num_begun)]
    assert ("all were refused for what they were given" in capsys.readouterr().err) == (num_begun < 5)
    assert ("2 of them not begun" in str(raised.value)) == (num_begun < 5)


def test_combinations_of_one_training_are_one_job(jobs: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    run_jobs(Ending(0, 0), [*jobs[:2], Job(["seed=1", "num_workers=3"], jobs[1].folder)])
    assert "3 combinations are 2 jobs" in capsys.readouterr().err
    run_jobs(Ending(), jobs[:2])
    assert "combinations" not in capsys.readouterr().err


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"a": 1}', '{"results": 3, "timing": {}}'])
def test_a_damaged_result_is_none(jobs: list[Job], damaged: str, capsys: pytest.CaptureFixture[str]) -> None:
    job = jobs[0]
    run_jobs(Ending(0), [job])
    (job.folder / "result.json").write_text(damaged)
    assert job.state() is State.MISSING
    with pytest.raises(Findings):
        run_jobs(Ending(1), [job])
    assert not (job.folder / "result.json").exists()  # a training that finds one takes itself for finished
    run_jobs(Ending(0), [job])
    assert job.state() is State.DONE
