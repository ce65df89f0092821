"""jobs.json of a sweep's folder: which jobs it has, so that a report knows which are missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from videogn.identity import is_volatile
from videogn.sweep.job import Job, alone
from videogn.types import InputError
from videogn.whole import whole

NAME = "jobs.json"
_LOCK = ".jobs.lock"


@dataclass(frozen=True)
class Ledger:
    """What jobs.json says.

    Attributes:
        command_line: of the last command.
        jobs: its jobs, and those of commands before it that have begun.
    """

    command_line: str
    jobs: tuple[Job, ...]


def is_sweep(folder: Path) -> bool:
    return (folder / NAME).is_file()


def is_plain(name: str) -> bool:
    """Whether it names a folder right in another one."""
    return name == Path(name).name and name not in ("", "..")


def write_jobs(folder: Path, jobs: Sequence[Job], command_line: str) -> None:
    """Those of this command, and those of earlier ones that have begun; a job that was asked for twice is one.

    A job of the same words under another name is of other data, another version or another experiment file: no repetition. The
    older one leaves the list, and its folder stays.
    """
    with alone(folder / _LOCK):
        names, words = {job.folder.name for job in jobs}, {_words(job) for job in jobs}
        before = read_jobs(folder).jobs if is_sweep(folder) else ()
        left = [job for job in before if job.folder.is_dir() and job.folder.name not in names and _words(job) not in words]
        _write(folder, [*left, *jobs], command_line)


def keep_jobs(folder: Path, jobs: Sequence[Job]) -> None:
    """Put back those that had not begun when another command wrote the list, at the end of their own."""
    with alone(folder / _LOCK):
        ledger = read_jobs(folder)
        names, words = {job.folder.name for job in ledger.jobs}, {_words(job) for job in ledger.jobs}
        lost = [job for job in jobs if job.folder.is_dir() and job.folder.name not in names and _words(job) not in words]
        if lost:
            _write(folder, [*ledger.jobs, *lost], ledger.command_line)


def read_jobs(folder: Path) -> Ledger:
    """Raises InputError: there is no jobs.json, or a damaged one."""
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not all(is_plain(job["id"]) for job in content["jobs"]):
            raise ValueError("a job that is none of this folder")
        jobs = tuple(Job([str(o) for o in job["overrides"]], folder / job["id"]) for job in content["jobs"])
        return Ledger(str(content["command_line"]), jobs)
    except FileNotFoundError:
        raise InputError(f"{folder}: no {NAME} in it; give the folder of a sweep, runs/sweep/NAME") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read as the jobs of a sweep ({type(error).__name__}); delete it, and run the sweep's "
            "command again, which writes it anew and skips what is done"
        ) from None


def _write(folder: Path, jobs: Sequence[Job], command_line: str) -> None:
    found = {job.folder.name: job for job in jobs}
    content = {
        "schema": 1,
        "command_line": command_line,
        "jobs": [{"id": name, "overrides": job.overrides} for name, job in found.items()],
    }
    with whole(folder / NAME) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _words(job: Job) -> frozenset[tuple[str, str]]:
    """What its command line says of the training."""
    return frozenset((key, value) for key, value in job.values.items() if not is_volatile(key))
