"""Files without a name: nothing is left of them, however a process ends."""

from __future__ import annotations

import os
import tempfile


def anonymous_file(what: str, in_memory: bool = True) -> int:
    """The descriptor of an empty file that can be read and written.

    Args:
        what: its content, as the kernel's list of a process's maps shows it.
        in_memory: where the system has such files, and there no part of /dev/shm; else in TMPDIR.
    """
    if in_memory and hasattr(os, "memfd_create"):
        return os.memfd_create(f"videogn {what}")
    with tempfile.TemporaryFile() as temporary:
        return os.dup(temporary.fileno())
