"""Memory of the CPU that a training step does not have to ask the system for anew."""

from __future__ import annotations

import ctypes
import os
import sys

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_LARGEST = 2**31 - 1  # an int
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_memory() -> bool:
    """Have glibc keep what tensors free, for the tensors of the next step; returns whether it does.

    By itself it gives every block above 32 MiB back to the system and takes it again at the next step, page by page, each
    filled with zeros; docs/speed.md has what that costs. The process grows for a few steps more, until blocks of every size are
    there, and does not shrink between two. Where the user's environment says how malloc behaves, nothing is changed.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library, such as musl
        return False
    # From the heap alone, which grows in steps of 64 MiB and never shrinks.
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, _LARGEST), mallopt(_TOP_PAD, 2**26)])
