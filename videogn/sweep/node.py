"""A job of a queue, on the node: what submitit unpickles and calls, once for every task."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from videogn.configuration import quoted
from videogn.sweep.job import LOG, Job
from videogn.types import PARENT

_POLL_SECONDS = 0.2
_LOCK_SECONDS = 120.0  # for the same job before it was requeued, or the command that submitted it, to let go
_SAVE_SECONDS = 80.0  # of the 120 between the warning and the end
_END_SECONDS = 300.0  # the longest that a queue gives a job that it has told to end


class Training:
    """Runs `videogn train ...` of a job in a process of its own, which holds the job's lock.

    The queue's warning (before a time limit, before pre-emption) ends it with everything saved, and the job is put into the queue
    again, from which it goes on.

    Args:
        program: that takes the words after `videogn`.
        overrides, folder: of the job.
        devices: words that tell Lightning of nodes and tasks, for a training that begins.
        place: the working directory.
    """

    def __init__(self, program: Sequence[str], overrides: Sequence[str], folder: str, devices: Sequence[str], place: str) -> None:
        self._program, self._overrides, self._folder = list(program), list(overrides), folder
        self._devices, self._place = list(devices), place
        self._process: subprocess.Popen[bytes] | None = None
        self._terminated = False

    def __call__(self) -> None:
        """Raises RuntimeError: the training failed, or another process has it; the other tasks are then ended too."""
        os.chdir(self._place)
        job, environment = Job(self._overrides, Path(self._folder)), JobEnvironment()
        if job.result() is not None:
            return
        rank = environment.global_rank
        lock = None
        if not rank:
            if (lock := _held(job)) is None:
                raise RuntimeError(f"{job.folder}: another process runs it")
            job.begin()
        if environment.cluster == "slurm":
            signal.signal(signal.SIGTERM, self._note)
        log = job.folder / (LOG if not rank else f"log_{rank}.txt")
        status = self._run(job, lock, log)
        if self._terminated and status in (128 + signal.SIGTERM, -signal.SIGTERM):
            # It has saved. The queue that told it so requeues or ends a job that is there, and takes one that ends for done.
            time.sleep(_END_SECONDS)
        if status or (not rank and job.result() is None):
            line = job.last_line(log)
            if job.failure() is None:
                job.fail(status, line if status else f"ended without a result: {line}")
            raise RuntimeError(f"{job.folder}: status {status}: {line}")

    def checkpoint(self) -> DelayedSubmission:
        """What is put into the queue again, once the training has saved."""
        process = self._process
        if process is not None:
            if not self._terminated:  # a second SIGTERM would end it before it has saved
                process.terminate()
            end = time.monotonic() + _SAVE_SECONDS
            while _is_alive(process.pid) and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)
        return DelayedSubmission(Training(self._program, self._overrides, self._folder, self._devices, self._place))

    def _run(self, job: Job, lock: int | None, log: Path) -> int:
        words = job.arguments()
        if not any(word.startswith("resume=") for word in words):
            words += [word for word in self._devices if word.partition("=")[0] not in job.values]
        # The queue sends its warning to every process of the job, and a training would end of it at once.
        warning = {getattr(signal, f"SIG{JobEnvironment.USR_SIG}")}
        signal.pthread_sigmask(signal.SIG_BLOCK, warning)
        try:
            with log.open("ab") as file:
                self._process = subprocess.Popen(
                    [*self._program, *quoted(words)],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, PARENT: str(os.getpid())},
                    pass_fds=[] if lock is None else [lock],
                    start_new_session=True,
                )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, warning)
        if lock is not None:
            os.close(lock)  # the training's own copy holds the folder
        # Not wait(): the warning's handler looks at the process too, and wait() would hold its lock.
        while (status := self._process.poll()) is None:
            time.sleep(_POLL_SECONDS)
        return status

    def _note(self, signum: int, frame: FrameType | None) -> None:
        """SLURM sends SIGTERM to every process of a job, so the training has had it too."""
        self._terminated = True


def _held(job: Job) -> int | None:
    end = time.monotonic() + _LOCK_SECONDS
    while (lock := job.lock()) is None and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    return lock


def _is_alive(pid: int) -> bool:
    """Of a child, without taking its status from the one who waits for it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False
