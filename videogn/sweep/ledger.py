"""jobs.json of a sweep's folder: which jobs it has, so that a report knows which are missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from videogn.sweep.job import Job, State
from videogn.types import InputError
from videogn.whole import whole

NAME = "jobs.json"


@dataclass(frozen=True)
class Ledger:
    """What jobs.json says.

    Attributes:
        command_line: of the last command.
        jobs: its jobs, and those of commands before it that are done.
    """

    command_line: str
    jobs: tuple[Job, ...]


def is_sweep(folder: Path) -> bool:
    return (folder / NAME).is_file()


def write_jobs(folder: Path, jobs: Sequence[Job], command_line: str) -> None:
    """Those of this command, with those of earlier commands that are done; a job that was asked for twice is one."""
    before = read_jobs(folder).jobs if is_sweep(folder) else ()
    done = [job for job in before if job.state() is State.DONE]
    found = {job.folder.name: job for job in (*done, *jobs)}
    content = {
        "schema": 1,
        "command_line": command_line,
        "jobs": [{"id": name, "overrides": job.overrides} for name, job in found.items()],
    }
    with whole(folder / NAME) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_jobs(folder: Path) -> Ledger:
    """Raises InputError: there is no jobs.json, or a damaged one."""
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        jobs = tuple(Job([str(o) for o in job["overrides"]], folder / _plain(job["id"])) for job in content["jobs"])
        return Ledger(str(content["command_line"]), jobs)
    except FileNotFoundError:
        raise InputError(f"{folder}: no {NAME} in it; give the folder of a sweep, runs/sweep/NAME") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read as the jobs of a sweep ({type(error).__name__}); run the sweep's command again"
        ) from None


def _plain(name: object) -> str:
    """The name of a folder right here."""
    if not isinstance(name, str) or name != Path(name).name:
        raise ValueError(name)
    return name
