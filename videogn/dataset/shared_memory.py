"""Whether the batches of a loader's workers fit into /dev/shm, through which torch passes them on Linux."""

from __future__ import annotations

import os
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # nosec B108 # its size is asked, nothing is written


def loader_bytes(batch_bytes: int, num_workers: int, prefetch_factor: int = 2) -> int:
    """What a loader's batches may take at a time: those fetched ahead, and the one that training works on."""
    return batch_bytes * (num_workers * prefetch_factor + 1) if num_workers else 0


def shared_memory_warning(bytes_needed: int, folder: Path = SHARED_MEMORY) -> str | None:
    """One line where `folder` has less than `bytes_needed` free; None where it suffices or where there is no such folder.

    A worker that finds no room for a batch ends, and the run with it. Docker gives 64 MB unless told otherwise.
    """
    try:
        found = os.statvfs(folder)
    except OSError:  # macOS keeps shared memory elsewhere
        return None
    free = found.f_bavail * found.f_frsize
    if bytes_needed <= free:
        return None
    return (
        f"{folder}: {free / 1e6:,.0f} MB are free, and the loader's batches may need {bytes_needed / 1e6:,.0f} MB; the run "
        f"ends where one finds no room. Start the container with --shm-size={-(-bytes_needed * 2 // 10**9)}g or --ipc=host, or "
        "take fewer workers; num_workers=0 needs none of it"
    )
