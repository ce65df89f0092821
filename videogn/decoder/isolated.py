"""Runs any decoder in a process of its own, which can be killed: a bad file costs that file and not the run.

FFmpeg and decord are C: on damaged files they hang (some while they hold the GIL, so that no thread or signal handler
helps), crash, or ask for memory without end. Each process that opens videos, a loader's worker for instance, starts one
decoder process when it opens the first, and keeps it for all of its videos:

    the decoder          what becomes of the file                                      and of the decoder process
    raises an error      the same error, same kind and same words                      stays
    gives no answer      VideoError: no answer in `deadline_seconds`                   killed
                         (OpenTimeout where it is the opening)
    crashes              VideoError: crashed, with the signal's name                   gone
    needs more memory    VideoError: needs more than `memory_bytes`                    killed

The next video starts another, and others that were open in it are opened anew. Frames come through shared memory, in
an array that is not written to again while anybody holds it.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from jaxtyping import UInt8

from videogn.decoder.channel import Blocks, Channel
from videogn.decoder.child import how_it_ended, module_path
from videogn.number import is_positive
from videogn.types import Decoder, InputError, OpenTimeout, ShortRead, VideoError

logger = logging.getLogger(__name__)

# Python, numpy, PyAV and decord load in a second; from a cold network disk with many workers beside it takes longer.
START_SECONDS = 300.0
MAX_DEADLINE_SECONDS = 86400  # system calls that wait take no more than some weeks
MAX_MEMORY_BYTES = 2**60  # with what the process has, still a number that the kernel takes


class IsolatedDecoder:
    """Opens videos with `decoder` in a killable process.

    Its name is that of `decoder`: the frames are the same, so results with and without isolation are comparable.

    Attributes:
        direct: `decoder`, for files that were verified.

    Args:
        decoder: any decoder; it is sent to its process by pickle.
        deadline_seconds: time for opening a video, and for each reading of frames; a day at most.
        memory_bytes: what the decoder process may use beyond what it needs to start, the frames of one reading included.
            Enforced on Linux.
    """

    def __init__(self, decoder: Decoder, deadline_seconds: float | int = 60.0, memory_bytes: int = 4 * 2**30) -> None:
        for name, value, high in (
            ("deadline_seconds", deadline_seconds, MAX_DEADLINE_SECONDS),
            ("memory_bytes", memory_bytes, MAX_MEMORY_BYTES),
        ):
            if not is_positive(value, high):
                raise InputError(f"decoder.{name}={value}: give a number above 0, at most {high}")
        self.name = decoder.name
        self.direct = decoder
        self.deadline_seconds = float(deadline_seconds)
        self.memory_bytes = int(memory_bytes)
        self._process: DecoderProcess | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": None}

    def open(self, path: str | Path) -> IsolatedVideo:
        return IsolatedVideo(path, self)

    def process(self) -> DecoderProcess:
        """The decoder process of this process, started where there is none."""
        if self._process is None or not self._process.is_alive():
            self._process = DecoderProcess(self.direct, self.deadline_seconds, self.memory_bytes)
        return self._process


class IsolatedVideo:
    """A video that is open in a decoder process; see `videogn.types.Video`."""

    def __init__(self, path: str | Path, decoder: IsolatedDecoder) -> None:
        self._path = path
        self._decoder = decoder
        self._closed = False
        self._ended: str | None = None  # why the file is given up
        self._open()

    def frames(self, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        """RGB frames at `indices`, in their order.

        Raises:
            VideoError: the decoder hangs, crashes or needs too much memory; from then on, every time.
            ShortRead, Declined, VideoError, IndexError: as the decoder in the other process raises them.
        """
        if self._closed:
            raise ValueError(f"{self._path}: the video is closed")
        if self._ended is not None:
            raise VideoError(self._path, self._ended)
        if not self._process.is_alive():
            self._open_anew()
        wanted = list(indices)
        try:
            frames, shape, facts = self._process.frames(self._number, wanted, self.height, self.width)
        except EndedError as error:
            self._ended = error.reason
            raise VideoError(self._path, error.reason) from None
        except RaisedError as error:
            if error.facts is not None:
                self._take(error.facts)
            raise error.error from error.cause
        self._take(facts)
        if frames is None or shape != (len(wanted), self.height, self.width, 3):
            raise VideoError(self._path, f"the decoder gave frames of shape {shape}, not as promised")
        return frames

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._forget.detach()
            self._process.close(self._number)

    def _open(self) -> None:
        self._process = self._decoder.process()
        try:
            self._number, facts = self._process.open(self._path)
        except EndedError as error:
            kind = OpenTimeout if error.hung else VideoError
            raise kind(self._path, error.reason) from None
        except RaisedError as error:
            raise error.error from error.cause
        self._forget = weakref.finalize(self, self._process.unused.append, self._number)
        self._forget.atexit = False
        self._take(facts)

    def _open_anew(self) -> None:
        """Another file has ended the decoder process, or this is a fork of the process that opened the video."""
        promised = self.timestamps
        self._forget.detach()
        self._open()
        if not np.array_equal(promised, self.timestamps):
            raise ShortRead(self._path, f"{self.num_frames} frames where there were {len(promised)}, once opened anew")

    def _take(self, facts: tuple[np.ndarray, int, float, int, int]) -> None:
        self.timestamps, self.num_frames, self.fps, self.height, self.width = facts


class EndedError(Exception):
    """The decoder process gave no answer; `hung` where it had not ended by itself."""

    def __init__(self, reason: str, hung: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hung = hung


class RaisedError(Exception):
    """The decoder raised `error`; `facts` of the video as they are now, where there is one."""

    def __init__(self, error: Exception, trace: str, facts: tuple[np.ndarray, int, float, int, int] | None) -> None:
        super().__init__(error)
        self.error = error
        self.cause = None if isinstance(error, VideoError | IndexError) else RuntimeError(f"in the decoder process:\n{trace}")
        self.facts = facts


class DecoderProcess:
    """A running `python -m videogn.decoder.isolated`.

    Raises:
        InputError: the decoder cannot be loaded there.
        RuntimeError: the process does not start.
    """

    def __init__(self, decoder: Decoder, deadline_seconds: float, memory_bytes: int) -> None:
        self._deadline_seconds, self._memory_bytes = deadline_seconds, memory_bytes
        self._lock = RLock()
        self._blocks = Blocks()
        self._num_open = 0
        self.unused: list[int] = []  # videos that were dropped without being closed
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "videogn.decoder.isolated", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": module_path(), "PYTHONSAFEPATH": "1"},
                start_new_session=True,  # a terminal's Ctrl-C does not reach it, not even while it starts
            )
        self._end = weakref.finalize(self, _end, self._process, self._channel)
        _running.add(self)
        try:
            pickled = pickle.dumps(decoder)
            answer = self._ask((pickled, deadline_seconds, memory_bytes), START_SECONDS)
        except EndedError as error:
            raise RuntimeError(f"decoder=isolated: {error.reason} before it could open a video") from None
        if answer[0] == "failed":
            self.end()
            raise InputError(
                f"decoder=isolated: its process cannot load {type(decoder).__name__} ({answer[1]}); define it in a module "
                "that can be imported"
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        """False also in a fork of the process that started it."""
        if self._end.alive and self._process.poll() is not None:
            self.end()
        return self._end.alive

    def open(self, path: str | Path) -> tuple[int, Any]:
        """(number of the video in the process, its facts)."""
        try:
            folder = os.getcwd()
        except FileNotFoundError:  # deleted: then no relative path opens here either
            folder = None
        with self._lock:
            _, number, facts = self._answer(("open", folder, path))
            self._num_open += 1
        return number, facts

    def frames(self, number: int, indices: list[int], height: int, width: int) -> tuple[np.ndarray | None, tuple[int, ...], Any]:
        """(the frames or None where they are larger than promised, their shape, the video's facts)."""
        with self._lock:
            block = self._blocks.take(len(indices) * height * width * 3)
            try:
                kind, shape, facts = self._answer(("frames", number, indices, (block.number, block.size)), block.file)
            except RaisedError:
                block.was_sent()
                self._blocks.give_back(block)
                raise
            block.was_sent()
            if kind == "misfit":
                self._blocks.give_back(block)
                return None, shape, facts
            return self._blocks.array(block, shape), shape, facts

    def close(self, number: int) -> None:
        with self._lock:
            if not self.is_alive():
                return
            try:
                _, grown = self._answer(("close", number))
            except (EndedError, RaisedError) as error:  # the frames are read: nothing is lost
                logger.debug("closing a video: %s", error)
                self.end()
                return
            self._num_open -= 1
            # What a decoder leaks is not blamed on the file that comes last.
            if not self._num_open and grown > self._memory_bytes / 4:
                self.end()

    def end(self) -> None:
        self._end()

    def before_fork(self) -> None:
        self._blocks.lend_for_good()

    def after_fork(self) -> None:
        """In the new process: leave the decoder process to the old one."""
        self._process.returncode = 0  # it is no child of this process: neither killed nor waited for
        self.end()  # closes the channel, or a decoder process would not see the end of its input when the old process dies

    def _answer(self, request: tuple[Any, ...], file: int | None = None) -> tuple[Any, ...]:
        if self.unused or self._blocks.dropped:
            videos, blocks = _emptied(self.unused), _emptied(self._blocks.dropped)
            self._num_open -= len(videos)
            self._checked(self._ask(("release", videos, blocks), self._deadline_seconds))
        return self._checked(self._ask(request, self._deadline_seconds, file))

    def _checked(self, answer: tuple[Any, ...]) -> tuple[Any, ...]:
        if answer[0] == "memory":
            self.end()  # what is left of its memory is anyone's guess
            raise EndedError(f"needs more than {self._memory_bytes / 2**30:.3g} GiB of memory to decode")
        if answer[0] == "raised":
            raise RaisedError(*answer[1:])
        return answer

    def _ask(self, request: tuple[Any, ...], seconds: float, file: int | None = None) -> tuple[Any, ...]:
        deadline = time.monotonic() + seconds
        try:
            self._channel.send(request, file, deadline)
            return self._channel.receive(deadline)[0]
        except TimeoutError:
            self.end()
            raise EndedError(f"the decoder gave no answer in {seconds:g} s and was killed", hung=True) from None
        except (EOFError, ConnectionError, pickle.UnpicklingError):
            raise EndedError(self._how_it_ended()) from None
        except BaseException:  # Ctrl-C: the answer to this would pass for the answer to the next
            self.end()
            raise

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            status = 0
        self.end()
        return how_it_ended(status)


def _emptied(numbers: list[int]) -> list[int]:
    """What was in the list; the garbage collector may add to it at any moment."""
    return [numbers.pop() for _ in range(len(numbers))]


def _end(process: subprocess.Popen[bytes], channel: Channel) -> None:
    channel.close()
    process.kill()
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:  # it hangs in the kernel, on a dead network disk for instance; not our time
        logger.debug("decoder process %d does not die", process.pid)


_running: weakref.WeakSet[DecoderProcess] = weakref.WeakSet()


def _before_fork() -> None:
    for process in list(_running):
        process.before_fork()


def _after_fork() -> None:
    for process in list(_running):
        process.after_fork()
    _running.clear()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)

if __name__ == "__main__":
    from videogn.decoder.serve import serve

    serve()
