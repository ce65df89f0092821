"""The decoder process: opens videos and reads frames for the process that started it, and dies with it.

Messages are plain tuples; see `answer`. Frames go into a block of shared memory, everything else through the channel.
"""

from __future__ import annotations

import mmap
import os
import pickle
import resource
import signal
import socket
import sys
import traceback
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from videogn.decoder.channel import Channel
from videogn.decoder.child import die_with
from videogn.memory_limit import data_bytes, limit_memory
from videogn.types import Decoder, Video


def serve() -> None:
    """Arguments of the process: the descriptor of its socket, and the process that started it."""
    file, parent = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us decides when we end
    die_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash costs a video, not a disk full of cores
    channel = Channel(socket.socket(fileno=file))
    try:
        (decoder, deadline_seconds, memory_bytes), _ = channel.receive()
        server = Server(decoder)
        limit_memory(memory_bytes)
        channel.send(("ready",))
        while True:
            request, block = channel.receive()
            # Where a system knows no PDEATHSIG, the kernel's alarm ends a hang that has outlived whoever waited for it.
            signal.setitimer(signal.ITIMER_REAL, 2 * deadline_seconds)
            message = server.answer(request, block)
            signal.setitimer(signal.ITIMER_REAL, 0)
            channel.send(message)
    except (EOFError, ConnectionError):
        return
    except Exception as error:  # the decoder cannot be unpickled
        channel.send(("failed", f"{type(error).__name__}: {error}"))


class Server:
    """The open videos and mapped blocks of a decoder process."""

    def __init__(self, pickled: bytes) -> None:
        self._decoder: Decoder = pickle.loads(pickled)  # nosec B301 # from the process that started this one
        self._videos: dict[int, Video] = {}
        self._blocks: dict[int, mmap.mmap] = {}
        self._numbers = count()
        self._baseline = data_bytes()

    def answer(self, request: tuple[Any, ...], file: int | None) -> tuple[Any, ...]:
        """What to send back.

        ("open", folder, path)               ("opened", video, facts)
        ("frames", video, indices, block)    ("frames", shape, facts); `block` is (number, size), its file comes along once.
                                             ("misfit", shape, facts) where they are not what the video promised
        ("close", video)                     ("closed", bytes of data more than at the start)
        ("release", videos, blocks)          ("released",)
        any of them                          ("raised", error, its traceback, facts or None)
                                             ("memory",): an allocation failed
        """
        kind, *arguments = request
        try:
            if kind == "frames" and file is not None:
                number, size = arguments[2]
                self._blocks[number] = mmap.mmap(file, size)
                os.close(file)
            return getattr(self, f"_{kind}")(*arguments)
        except MemoryError:
            return ("memory",)
        except Exception as error:
            known = kind == "frames" and arguments[0] in self._videos
            return ("raised", *_portable(error), facts(self._videos[arguments[0]]) if known else None)

    def _open(self, folder: str | None, path: str | Path) -> tuple[Any, ...]:
        if folder is not None:
            os.chdir(folder)  # a relative path means the same in both processes
        video = self._decoder.open(path)
        number = next(self._numbers)
        self._videos[number] = video
        return "opened", number, facts(video)

    def _frames(self, number: int, indices: list[int], block: tuple[int, int]) -> tuple[Any, ...]:
        video = self._videos[number]
        frames = video.frames(indices)
        if frames.nbytes > block[1]:  # there is room for the size that the video promised
            return "misfit", frames.shape, facts(video)
        np.frombuffer(self._blocks[block[0]], np.uint8, count=frames.size).reshape(frames.shape)[:] = frames
        return "frames", frames.shape, facts(video)

    def _close(self, number: int) -> tuple[Any, ...]:
        self._videos.pop(number).close()
        return "closed", max(data_bytes() - self._baseline, 0)

    def _release(self, videos: list[int], blocks: list[int]) -> tuple[Any, ...]:
        for number in videos:
            self._videos.pop(number).close()
        for number in blocks:
            self._blocks.pop(number, None)
        return ("released",)


def facts(video: Video) -> tuple[np.ndarray, int, float, int, int]:
    return video.timestamps, video.num_frames, video.fps, video.height, video.width


def _portable(error: Exception) -> tuple[Exception, str]:
    """The error as it can be sent, and its traceback."""
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        pickle.loads(pickle.dumps(error))  # nosec B301 # made here
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}"), trace
    return error, trace
