"""One training of a sweep: its words, its folder, and how far it got."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from videogn.identity import DATASET_PATHS, DATASET_READING
from videogn.types import InputError
from videogn.whole import whole

LOG = "log.txt"
TOLD_TO_END = 143  # the status of a job that was told to save and end, by SIGTERM: it is not over
_FAILURE = "failure.json"
_RESULT = "result.json"
_LOCK = ".lock"
# What may be another than when the job began, and is said again when it goes on. Its name is the same where the data are.
_FREE = ("num_workers", "report_videos", *DATASET_PATHS, *DATASET_READING)


class State(str, Enum):
    """How far a job got, as its folder says."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    MISSING = "missing"


@dataclass
class Job:
    """One combination of values.

    Attributes:
        overrides: its command line, KEY=VALUE each.
        folder: its run folder, named by the hash of its configuration.
    """

    overrides: list[str]
    folder: Path

    @property
    def values(self) -> dict[str, str]:
        """What the command line says of every key."""
        return dict(override.split("=", 1) for override in self.overrides if "=" in override)

    def arguments(self) -> list[str]:
        """Of `videogn` for what is left to do."""
        if (self.folder / "checkpoint" / "last.ckpt").is_file():
            moved = [override for override in self.overrides if override.split("=", 1)[0] in _FREE]
            return ["train", f"resume={self.folder}", *moved]
        return ["train", *self.alone(), f"out={self.folder}"]

    def alone(self) -> list[str]:
        """Its command line as one training: an experiment may say that it is a multirun, and this is one job of it."""
        single = ["hydra.mode=RUN"] if any(o.startswith("experiment=") for o in self.overrides) else []
        return [*self.overrides, *single]

    def state(self) -> State:
        return state(self.folder)

    def result(self) -> dict[str, Any] | None:
        """result.json, if the job has got that far; None too where it is damaged."""
        return _result(self.folder)

    def failure(self) -> dict[str, Any] | None:
        """`status` (of the process, below 0 for a signal) and `message`, if it failed."""
        return _read(self.folder / _FAILURE)

    def begin(self) -> None:
        """Forget how it ended before. A damaged result is none: the job tests again."""
        (self.folder / _FAILURE).unlink(missing_ok=True)
        if self.result() is None:
            (self.folder / _RESULT).unlink(missing_ok=True)

    def fail(self, status: int, message: str) -> None:
        with whole(self.folder / _FAILURE) as unfinished:
            unfinished.write_text(json.dumps({"status": status, "message": message}) + "\n", encoding="utf-8")

    def lock(self) -> int | None:
        """A descriptor that holds the job, for as long as a process has it open; None where another process holds it."""
        return hold(self.folder / _LOCK)

    def last_line(self, log: Path | None = None) -> str:
        """Of what it printed, to `log` if it is not log.txt."""
        log = log or self.folder / LOG
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
        return lines[-1] if lines else "no output"


def hold(path: Path) -> int | None:
    """A descriptor that holds the file, for as long as a process has it open; None where another process holds it.

    Raises:
        InputError: its file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        remedy = "the sweep's folder must lie on a file system that knows flock"
        raise InputError(f"{path}: cannot be held: {error.strerror}; {remedy}") from error
    return descriptor


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait for the others that hold the file, and hold it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def state(folder: Path) -> State:
    """Of the job in this folder."""
    if _result(folder) is not None:
        return State.DONE
    if _is_held(folder / _LOCK):
        return State.RUNNING
    if (folder / _FAILURE).is_file():
        return State.FAILED
    return State.INTERRUPTED if (folder / "checkpoint" / "last.ckpt").is_file() else State.MISSING


def varying(jobs: Sequence[Job]) -> list[str]:
    """The keys whose value is not the same in all jobs, in the order of the command line."""
    values = [job.values for job in jobs]
    keys = dict.fromkeys(key for one in values for key in one)
    return [key for key in keys if len({one.get(key) for one in values}) > 1]


def named(job: Job, keys: Sequence[str]) -> str:
    """The job in a line: its values of these keys."""
    values: Mapping[str, str] = job.values
    return " ".join(f"{key}={values[key]}" for key in keys if key in values) or "the only job"


def _is_held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # so that two who look do not take each other for the holder
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _result(folder: Path) -> dict[str, Any] | None:
    content = _read(folder / _RESULT)
    return content if content is not None and isinstance(content.get("results"), list) and "timing" in content else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
