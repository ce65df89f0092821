"""Run the jobs of a sweep with any of our launchers, and say how each ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table

from videogn.sweep.job import Job, State, named, varying
from videogn.types import Findings

_BAD_INPUT = 2  # the exit status
_ALL_REFUSED = 3  # jobs that were, and none that was not: the fault is in what all are given, such as a path


class JobLauncher(Protocol):
    """Runs jobs, as many at a time as it may; a job that fails does not stop the others."""

    def run(self, jobs: Iterator[Job], say: Callable[[str], None], ended: Callable[[Job, float], None]) -> None:
        """Take the next job whenever there is room for one, until there are none and all have ended.

        Args:
            say: a line for the user.
            ended: takes a job that has ended, and the seconds that it took here.

        Raises:
            Stopped: on Ctrl-C or SIGTERM, once the jobs have saved what they have.
        """
        ...


class OneByOne(Iterator[Job]):
    """Jobs of which the next depends on how those before it ended: a launcher takes one when it has room, and never ahead."""

    def __init__(self, jobs: Iterator[Job]) -> None:
        self._jobs = jobs

    def __next__(self) -> Job:
        return next(self._jobs)


def run_jobs(launcher: JobLauncher, jobs: Sequence[Job]) -> None:
    """Run what is not done, and print the table of all.

    Raises:
        Findings: jobs have failed.
    """
    asked, jobs = len(jobs), list({job.folder: job for job in jobs}.values())
    keys = varying(jobs)
    numbers = {job.folder: number for number, job in enumerate(jobs, start=1)}
    console = Console(stderr=True, highlight=False)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    if asked > len(jobs):
        say(f"{asked} combinations are {len(jobs)} jobs: the others differ in nothing that a training sees")

    def title(job: Job) -> str:
        return f"job {numbers[job.folder]}/{len(jobs)}"

    refused, ended_well = [], []

    def to_run() -> Iterator[Job]:
        for job in jobs:
            if len(refused) >= _ALL_REFUSED and not ended_well:
                say(f"{len(refused)} jobs have ended and all were refused for what they were given: no more are begun")
                return
            if job.state() is State.DONE:
                say(f"{title(job)}  {named(job, keys)}  done before")
                continue
            say(f"{title(job)}  {named(job, keys)}  {job.folder}")
            yield job

    def ended(job: Job, seconds: float) -> None:
        (refused if (job.failure() or {}).get("status") == _BAD_INPUT else ended_well).append(job)
        say(f"{title(job)}  {outcome(job)}, {seconds:.0f} s")

    launcher.run(to_run(), say, ended)
    print_whole(table(jobs, keys))
    states = [job.state() for job in jobs]
    if failed := len(jobs) - states.count(State.DONE):
        left = f", {missing} of them not begun" if (missing := states.count(State.MISSING)) else ""
        raise Findings(f"{failed} of {len(jobs)} jobs failed{left}; the same command runs them again and skips what is done")


def print_whole(table: Table) -> None:
    """As wide as it is, also where the terminal is narrower: a line that is cut says less than one that is wrapped."""
    Console(width=max(Console().width, Console(width=1000).measure(table).maximum)).print(table)


def outcome(job: Job) -> str:
    """How it ended, in some words."""
    if (result := job.result()) is not None:
        scores = [f"{entry['name']} top-1 {entry['metrics']['top1']:.1%}" for entry in result["results"]]
        return ", ".join(["done", *scores])
    if (failure := job.failure()) is None:
        return "stopped"
    return f"failed with {status_text(failure['status'])}: {failure['message']}"


def table(jobs: Sequence[Job], keys: Sequence[str]) -> Table:
    """Every job with its values, its state and its scores."""
    right = {"top-1", "loss", "time"}
    shown = Table()
    for column in (*keys, "state", "protocol", "top-1", "loss", "time"):
        shown.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for job in jobs:
        row = [job.values.get(key, "") for key in keys]
        state, result, failure = job.state(), job.result(), job.failure()
        if result is None:
            why = f", {status_text(failure['status'])}" if state is State.FAILED and failure is not None else ""
            shown.add_row(*row, f"{state.value}{why}", "", "", "", "")
            continue
        for entry in result["results"]:
            metrics = entry["metrics"]
            loss = "" if metrics["loss"] is None else f"{metrics['loss']:.3f}"
            seconds = f"{result['timing']['total_seconds']:.0f} s"
            shown.add_row(*row, state.value, entry["name"], f"{metrics['top1']:.1%}", loss, seconds)
    return shown


def status_text(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"
