"""Decode in a thread of its own what comes next, while what came last is scored."""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

_Item = TypeVar("_Item")
_END: Any = object()
# At exit a thread has that long to end its task, and then that long to come back to Python, which every call into torch does in
# time; a decoder in its own process may hang longer, and is left to it.
_TASK_SECONDS, _CALL_SECONDS = 0.5, 2.0


class DecodingThread:
    """One thread for all that a decoder does, started when there is something to do.

    The process of an isolated decoder dies with the thread that started it (PR_SET_PDEATHSIG counts threads), so this one lives
    as long as its owner. A daemon: Ctrl-C does not wait for a file on which a decoder hangs.
    """

    def __init__(self) -> None:
        self._process = 0
        self._tasks: SimpleQueue[Any] = SimpleQueue()

    def submit(self, function: Callable[..., _Item], *arguments: Any) -> Future[_Item]:
        """Run it behind what was submitted before; whatever it raises is raised by `result()`."""
        if self._process != os.getpid():  # not yet started, or a fork: threads are not forked along
            self._process, self._tasks = os.getpid(), SimpleQueue()
            _Worker(self._tasks).start()
            weakref.finalize(self, self._tasks.put, None)
        future: Future[_Item] = Future()
        self._tasks.put((future, function, arguments))
        return future


class ReadAhead(Iterator[_Item], Generic[_Item]):
    """The items of a generator, each made in the thread while the one before is in use.

    One item is made ahead and no more, so several of these share the thread without waiting for each other's readers.
    """

    def __init__(self, thread: DecodingThread, items: Iterator[_Item]) -> None:
        self._thread, self._items = thread, items
        self._next: Future[Any] = thread.submit(next, items, _END)

    def __next__(self) -> _Item:
        item: Any = self._next.result()
        if item is _END:
            raise StopIteration
        self._next = self._thread.submit(next, self._items, _END)
        return item

    def close(self) -> None:
        """End the generator early; its files are closed in the thread."""
        self._thread.submit(getattr(self._items, "close", lambda: None))


class _Worker(threading.Thread):
    def __init__(self, tasks: SimpleQueue[Any]) -> None:
        super().__init__(name="videogn decoding", daemon=True)
        self._tasks = tasks
        self._is_ending = False
        _workers.add(self)

    def run(self) -> None:
        while not self._is_ending and (task := self._tasks.get()) is not None:
            future, function, arguments = task
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # for whoever waits; without an answer they would wait for ever
                future.set_exception(error)
            del task, future, function, arguments  # frames are not held until the next task comes

    def end(self) -> None:
        """Take no other task."""
        self._is_ending = True
        self._tasks.put(None)

    def interrupt(self) -> None:
        """Leave off the task that it is at; in a callback of the garbage collector Python would tell of it on stderr."""
        if self.is_alive() and self.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(SystemExit))


_workers: weakref.WeakSet[_Worker] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """A thread that is in C++ when Python ends takes the process down with it: "terminate called", status 134 instead of ours."""
    alive = [worker for worker in list(_workers) if worker.is_alive()]
    for worker in alive:
        worker.end()
    for interrupts, seconds in ((False, _TASK_SECONDS), (True, _CALL_SECONDS)):
        for worker in alive:
            if interrupts:
                worker.interrupt()
            worker.join(seconds)
