"""A limit to what this process may allocate, so that a file made to fill the memory costs an error and not the machine."""

from __future__ import annotations

import mmap
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def limit_memory(more_bytes: int) -> None:
    """Allocations fail once this process has `more_bytes` more than now; nothing where the system does not count them."""
    now = data_bytes()
    if now:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = now + more_bytes if hard == resource.RLIM_INFINITY else min(now + more_bytes, hard)
        # Not RLIMIT_AS: that counts libraries, and shared memory too.
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


@contextmanager
def memory_limited() -> Iterator[None]:
    """As limit_memory, of what the machine has now, until the end of the block."""
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    more_bytes = available_bytes()
    if more_bytes is not None:
        limit_memory(more_bytes)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def data_bytes() -> int:
    """Private writable memory of this process, which RLIMIT_DATA limits; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * mmap.PAGESIZE
    except (OSError, IndexError):
        return 0


def available_bytes() -> int | None:
    """What the machine has for new processes without swapping; None where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):
        return None
