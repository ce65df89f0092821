"""Each job of a sweep in a process of its own: `python -m videogn train ...`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from videogn.configuration import quoted
from videogn.number import is_count, is_positive
from videogn.sweep.job import LOG, TOLD_TO_END, Job
from videogn.types import PARENT, InputError, Stopped

_PROGRAM = (sys.executable, "-m", "videogn")
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 60.0  # for a job to save its checkpoint

_Say = Callable[[str], None]
_Ended = Callable[[Job, float], None]


@dataclass
class _Running:
    job: Job
    slot: int
    process: subprocess.Popen[bytes]
    start: float
    told: float | None = None  # when it was told to end, its time being over
    signum: int = 0  # of ours, that it has had


class ProcessLauncher:
    """Runs jobs on this machine; what one prints goes to log.txt in its folder.

    A job whose folder another process holds is waited for, and run if that one leaves it unfinished. When this process ends,
    however it ends, its jobs are told to save and end too (on Linux; elsewhere they go on, and hold their folders).

    Args:
        num_parallel: jobs at a time. The GPUs of this machine (CUDA_VISIBLE_DEVICES, else all) are divided among them evenly;
            where there are fewer GPUs than jobs, they share. On CPUs each gets as many threads as its share of the cores.
        time_limit_hours: for a job; then it is told to save and end, and counts as failed. null: none.
    """

    def __init__(self, num_parallel: int = 1, time_limit_hours: float | None = None) -> None:
        if not is_count(num_parallel, 1):
            raise InputError(f"hydra.launcher.num_parallel={num_parallel}: give a whole number from 1 up")
        if time_limit_hours is not None and not is_positive(time_limit_hours):
            raise InputError(f"hydra.launcher.time_limit_hours={time_limit_hours}: give hours above 0, or null")
        self._num_parallel = num_parallel
        self._limit = None if time_limit_hours is None else time_limit_hours * 3600
        self._running: list[_Running] = []
        self._signum = 0

    def run(self, jobs: Iterator[Job], say: _Say, ended: _Ended) -> None:
        environments = _environments(self._num_parallel)
        held: list[Job] = []  # by other processes
        before = {signum: signal.signal(signum, self._note) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            exhausted = False
            while not exhausted or held or self._running:
                while not exhausted and len(self._running) < self._num_parallel and not self._signum:
                    if (job := next(jobs, None)) is None:
                        exhausted = True
                    elif self._signum:  # it came while the job was made
                        break
                    elif not self._start(job, environments, say, ended):
                        say(f"  {job.folder}: another process runs it; waiting for it at the end")
                        held.append(job)
                if exhausted and not self._signum and len(self._running) < self._num_parallel:
                    for job in list(held):
                        if job.result() is not None:
                            held.remove(job)
                            ended(job, 0.0)
                        elif len(self._running) < self._num_parallel and self._start(job, environments, say, ended):
                            held.remove(job)
                self._end(say, ended)
                if self._signum and not self._running:
                    raise Stopped(self._signum, "the sweep; the same command goes on with it")
                time.sleep(_POLL_SECONDS)
        finally:
            for one in self._running:  # an error of ours
                one.process.terminate()
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _start(self, job: Job, environments: list[dict[str, str]], say: _Say, ended: _Ended) -> bool:
        """False where another process holds the job; one that cannot begin has ended."""
        lock = None
        try:
            if (lock := job.lock()) is None:
                return False
            taken = {one.slot for one in self._running}
            slot = next(place for place in range(self._num_parallel) if place not in taken)
            job.begin()
            with (job.folder / LOG).open("ab") as log:
                # A session of its own: Ctrl-C in the terminal reaches it once, through us.
                process = subprocess.Popen(
                    [*_PROGRAM, *quoted(job.arguments())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environments[slot], PARENT: str(os.getpid())},
                    pass_fds=[lock],
                    start_new_session=True,
                )
        except OSError as error:
            _fail(job, 1, f"cannot begin: {error.strerror}", say)
            ended(job, 0.0)
            return True
        finally:
            if lock is not None:
                os.close(lock)  # the job's own copy holds the folder
        one = _Running(job, slot, process, time.monotonic())
        self._running.append(one)
        if self._signum and not one.signum:  # it came before the job was among those that are told
            process.send_signal(self._signum)
        return True

    def _end(self, say: _Say, ended: _Ended) -> None:
        """See which have ended, and end those whose time is over."""
        for one in list(self._running):
            seconds = time.monotonic() - one.start
            status = one.process.poll()
            if status is None:
                if self._limit is not None and seconds > self._limit:
                    if one.told is None:
                        one.told = time.monotonic()
                        one.process.terminate()
                    elif time.monotonic() - one.told > _GRACE_SECONDS:
                        one.process.kill()
                continue
            self._running.remove(one)
            if status == 0 and one.job.result() is None:
                _fail(one.job, status, f"ended without a result: {one.job.last_line()}", say)
            elif status and one.told is not None:
                how = f", and killed by signal {-status}" if status < 0 else ""
                message = f"over its time limit of {self._limit:.0f} s{how}; the same command goes on with it"
                _fail(one.job, TOLD_TO_END, message, say)
            elif status and not self._signum:
                last = one.job.last_line()
                _fail(one.job, status, f"killed; the last that it printed: {last}" if status < 0 else last, say)
            ended(one.job, seconds)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        """Pass it on: a job saves its checkpoint on the first signal, and ends at once on the second."""
        self._signum = signum
        for one in self._running:
            one.signum = signum
            one.process.send_signal(signum)


def _fail(job: Job, status: int, message: str, say: _Say) -> None:
    """Also where its folder cannot be written."""
    try:
        job.fail(status, message)
    except OSError as error:
        say(f"  {job.folder}: {message} (and this cannot be written down: {error.strerror})")


def _environments(num_parallel: int) -> list[dict[str, str]]:
    """Of each place for a job: which GPUs it sees, or how many threads it takes."""
    if num_parallel == 1:
        return [{}]
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(gpu) for gpu in range(torch.cuda.device_count())] if named is None else [g for g in named.split(",") if g]
    if not gpus or not torch.cuda.is_available():
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return [{"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // num_parallel)))}] * num_parallel
    share = max(1, len(gpus) // num_parallel)
    places = [[gpus[(place * share + i) % len(gpus)] for i in range(share)] for place in range(num_parallel)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(place)} for place in places]
