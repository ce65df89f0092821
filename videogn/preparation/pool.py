"""Work in several processes, each of which may hang, crash or take all memory at the price of its one task.

concurrent.futures breaks the whole pool where a process dies, and cannot end one that hangs.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from videogn.decoder.child import how_it_ended, module_path

_POLL_SECONDS = 0.1  # in which a process may pass its memory limit by what it can fill meanwhile, some 0.2 GB
_START_SECONDS = 120.0  # for a process to import what it needs


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        answer: of the function; None where its process ended without.
        reason: why there is none: "crashed ...", "took more than ...".
        seconds: that it took.
    """

    answer: dict[str, Any] | None
    reason: str
    seconds: float


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    started: float
    is_ready: bool = False
    number: int | None = None  # of its task
    received: bytearray = field(default_factory=bytearray)


class KillablePool:
    """Runs one function in processes of its own. A context manager: at its end no process is left.

    Args:
        function: `module:function`, called with the keyword arguments of a task, all plain data, as is its answer.
        num_workers: processes at a time.
        deadline: seconds that a task may take.
        memory_bytes: that a process may hold (its resident set; watched where there is /proc).
    """

    def __init__(self, function: str, num_workers: int, deadline: float, memory_bytes: int) -> None:
        self._function = function
        self._num_workers = num_workers
        self._deadline = deadline
        self._memory_bytes = memory_bytes
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []

    def __enter__(self) -> KillablePool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in list(self._workers):
            self._end(worker)
        self._selector.close()

    def run(self, tasks: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Outcome]]:
        """(place among the tasks, outcome) of every task, in the order in which they end; nothing while none has ended.

        Raises:
            RuntimeError: a process does not start.
        """
        waiting = enumerate(tasks)
        upcoming = next(waiting, None)
        checked = time.monotonic()
        while upcoming is not None or any(worker.number is not None for worker in self._workers):
            for worker in self._workers:
                if upcoming is not None and worker.is_ready and worker.number is None:
                    self._give(worker, *upcoming)
                    upcoming = next(waiting, None)
            starting = any(not worker.is_ready for worker in self._workers)
            if upcoming is not None and not starting and len(self._workers) < self._num_workers:
                self._start()
            for key, _ in self._selector.select(_POLL_SECONDS):
                yield from self._read(key.data)
            if time.monotonic() - checked >= _POLL_SECONDS:
                for worker in list(self._workers):
                    yield from self._check(worker)
                checked = time.monotonic()

    def _start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "videogn.preparation.worker", self._function, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",  # -m puts it before the libraries
            env=os.environ | {"PYTHONPATH": module_path()},
            start_new_session=True,  # Ctrl-C reaches this process alone
        )
        worker = _Worker(process, time.monotonic())
        self._workers.append(worker)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)

    def _give(self, worker: _Worker, number: int, task: Mapping[str, Any]) -> None:
        worker.number, worker.started = number, time.monotonic()
        assert worker.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died meanwhile, which its output will tell
            worker.process.stdin.write(json.dumps(dict(task)).encode() + b"\n")
            worker.process.stdin.flush()

    def _read(self, worker: _Worker) -> Iterator[tuple[int, Outcome]]:
        assert worker.process.stdout is not None
        block = worker.process.stdout.read()
        if block is None:
            return
        if not block:
            yield from self._lost(worker, None)
            return
        worker.received += block
        while b"\n" in worker.received:
            line, _, rest = worker.received.partition(b"\n")
            worker.received = rest
            if not worker.is_ready:
                worker.is_ready = True
                continue
            assert worker.number is not None
            number, worker.number = worker.number, None
            yield number, Outcome(json.loads(line), "", time.monotonic() - worker.started)

    def _check(self, worker: _Worker) -> Iterator[tuple[int, Outcome]]:
        seconds = time.monotonic() - worker.started
        if not worker.is_ready:
            if seconds > _START_SECONDS:
                yield from self._lost(worker, "")
        elif worker.number is not None:
            if seconds > self._deadline:
                yield from self._lost(worker, f"took more than {self._deadline:g} s")
            elif _resident_bytes(worker.process.pid) > self._memory_bytes:
                yield from self._lost(worker, f"took more than {self._memory_bytes / 2**20:,.0f} MiB of memory")

    def _lost(self, worker: _Worker, reason: str | None) -> Iterator[tuple[int, Outcome]]:
        """End a worker, whose task fails for this reason, or for that of its end."""
        seconds, number = time.monotonic() - worker.started, worker.number
        status = self._end(worker, kill=reason is not None)
        if not worker.is_ready:
            raise RuntimeError(f"{sys.executable} -m videogn.preparation.worker {self._function}: does not start")
        if number is not None:
            yield number, Outcome(None, reason or how_it_ended(status), seconds)

    def _end(self, worker: _Worker, kill: bool = True) -> int:
        process = worker.process
        assert process.stdin is not None
        assert process.stdout is not None
        self._workers.remove(worker)
        self._selector.unregister(process.stdout)
        if kill:
            process.kill()
        status = process.wait()
        with contextlib.suppress(BrokenPipeError):  # what it had not read
            process.stdin.close()
        process.stdout.close()
        return status


def _resident_bytes(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
