"""What a process and its decoder process share: a socket for messages, and memory for frames."""

from __future__ import annotations

import math
import mmap
import os
import pickle
import socket
import struct
import time
import weakref
from itertools import count
from typing import Any

import numpy as np
from jaxtyping import UInt8

from videogn.anonymous import anonymous_file

LENGTH = struct.Struct("!Q")
MAX_LENGTH = 2**32  # bytes; the timestamps of a year's video. More is the word of a process that has gone mad
# Arrays that may live in shared blocks at a time: each block costs file descriptors, so whoever collects clips gets copies.
MAX_HELD = 4
# A free block is kept for the next clip up to this size (86 frames of 1920 x 1080), so that one long video does not hold memory
# for good.
MAX_FREE = 512 * 2**20


class Channel:
    """Length-prefixed pickles over a socket, and an open file beside a message.

    Unpickling runs what it is told: only our own processes may be at the ends.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: Any, file: int | None = None, deadline: float = math.inf) -> None:
        """Raises TimeoutError at `deadline` (of time.monotonic), OSError where the other end is gone."""
        content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._wait_until(deadline)
        if file is None:
            self._end.sendall(LENGTH.pack(len(content)) + content)
        else:
            socket.send_fds(self._end, [LENGTH.pack(len(content))], [file])
            self._end.sendall(content)

    def receive(self, deadline: float = math.inf) -> tuple[Any, int | None]:
        """The next message and the file beside it; raises EOFError where no message comes any more, else as `send`."""
        self._wait_until(deadline)
        head, files, _, _ = socket.recv_fds(self._end, LENGTH.size, 1)
        head += self._read(LENGTH.size - len(head), deadline) if head else b""
        if not head:
            raise EOFError
        (length,) = LENGTH.unpack(head)
        if length > MAX_LENGTH:
            raise EOFError
        message = pickle.loads(self._read(length, deadline))  # nosec B301 # from our own process, whose rights are ours
        return message, files[0] if files else None

    def close(self) -> None:
        self._end.close()

    def _read(self, length: int, deadline: float) -> bytearray:
        content = bytearray(length)
        free = memoryview(content)
        while len(free):
            self._wait_until(deadline)
            got = self._end.recv_into(free)
            if not got:
                raise EOFError
            free = free[got:]
        return content

    def _wait_until(self, deadline: float) -> None:
        # Never zero: after a stop (Ctrl-Z, a suspended machine) the answer may be there although the time is over.
        self._end.settimeout(None if deadline == math.inf else max(deadline - time.monotonic(), 1e-3))


class Block:
    """An anonymous file, mapped: memory that two processes see.

    Attributes:
        number: its name between the two processes.
        file: its descriptor until the other process has it, then None.
        size: bytes.
    """

    _numbers = count()

    def __init__(self, size: int) -> None:
        self.number = next(Block._numbers)
        self.size = max(size, 1)
        self.file: int | None = _shared_file(self.size)
        self.memory = mmap.mmap(self.file, self.size)

    def was_sent(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None

    def __del__(self) -> None:
        self.was_sent()


class Blocks:
    """The blocks of one decoder process. One is lent to an array until nobody holds the array or a view of it."""

    def __init__(self) -> None:
        self._free: Block | None = None
        # By id: a reference to an array has no hash.
        self._lent: dict[int, tuple[weakref.ref[np.ndarray], Block]] = {}
        self.dropped: list[int] = []  # numbers of blocks that the other process need not map any longer

    def take(self, size: int) -> Block:
        """A block of at least `size` bytes that nobody uses."""
        block, self._free = self._free, None
        if block is not None and block.size < size:
            self._drop(block)
            block = None
        return Block(size) if block is None else block

    def give_back(self, block: Block) -> None:
        kept = self._free
        if block.size > MAX_FREE or (kept is not None and kept.size >= block.size):
            self._drop(block)
            return
        self._free = block
        if kept is not None:
            self._drop(kept)

    def array(self, block: Block, shape: tuple[int, ...]) -> UInt8[np.ndarray, "T H W 3"]:
        """The frames in a block that was taken. They change no more: the block is not used again while they are held."""
        # Every view has this array as its base, at any remove: it lives as long as the last of them.
        base = np.frombuffer(block.memory, np.uint8, count=math.prod(shape))
        if len(self._lent) >= MAX_HELD:
            copy = base.reshape(shape).copy()
            self.give_back(block)
            return copy
        reference = weakref.ref(base, self._returned)
        self._lent[id(reference)] = reference, block
        return base.reshape(shape)

    def lend_for_good(self) -> None:
        """Never use again what is lent now: a forked process sees the same memory, and may hold it longer than we do."""
        lent, self._lent = self._lent, {}
        for _, block in lent.values():
            self._drop(block)

    def _returned(self, reference: weakref.ref[np.ndarray]) -> None:
        _, block = self._lent.pop(id(reference), (None, None))
        if block is not None:
            self.give_back(block)

    def _drop(self, block: Block) -> None:
        block.was_sent()
        self.dropped.append(block.number)


def _shared_file(size: int) -> int:
    """An anonymous file of `size` bytes."""
    file = anonymous_file("frames")
    try:
        os.truncate(file, size)
    except BaseException:
        os.close(file)
        raise
    return file
