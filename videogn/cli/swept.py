"""The report of a sweep: its jobs are read, and what their folders say of them."""

from __future__ import annotations

from pathlib import Path

from videogn.evaluation.result import read_facts
from videogn.report.curves import read_curves
from videogn.report.sweep import write_sweep
from videogn.report.swept import SweptJob
from videogn.sweep.job import Job, State
from videogn.sweep.ledger import NAME, read_jobs
from videogn.types import InputError


def write_sweep_report(folder: Path) -> list[Path]:
    """report.html, report.md and report.csv of a sweep.

    Raises:
        InputError: its list of jobs or a result is damaged, or there are no jobs.
    """
    ledger = read_jobs(folder)
    if not ledger.jobs:
        raise InputError(f"{folder / NAME}: no jobs; give the folder of a sweep that has some")
    return write_sweep(folder, ledger.command_line, [swept(job) for job in ledger.jobs])


def swept(job: Job) -> SweptJob:
    """What a job's folder says of it."""
    state = job.state()
    result = read_facts(job.folder) if state is State.DONE else None
    curves = read_curves(job.folder / "metrics.csv")
    validation = {
        name: line.points[-1][1]
        for name, title in (("top1", "top-1"), ("loss", "loss"))
        for line in curves.get(title, ())
        if line.name == "val"
    }
    message = (job.failure() or {}).get("message", "")
    return SweptJob(job.folder.name, job.values, state.value, result, validation, str(message))
