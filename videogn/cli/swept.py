"""The report of a sweep: its jobs are read, and what their folders say of them."""

from __future__ import annotations

import math
from pathlib import Path

from videogn.evaluation.result import read_facts
from videogn.report.sweep import write_sweep
from videogn.report.swept import SweptJob
from videogn.sweep.job import Job, State
from videogn.sweep.ledger import NAME, read_jobs
from videogn.sweep.metric import METRICS, Metric
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
    last = {name: Metric(name, "last", maximize).read(job.folder) for name, maximize in METRICS.items()}
    validation = {name.removeprefix("val/"): value for name, value in last.items() if value is not None and math.isfinite(value)}
    message = (job.failure() or {}).get("message", "")
    return SweptJob(job.folder.name, job.values, state.value, result, validation, str(message))
