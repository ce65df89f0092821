"""What the processes share that may hang, crash or be killed at the price of one video: they die with whoever started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def module_path() -> str:
    """PYTHONPATH with which a new process finds the same modules as this one, those of the user included."""
    return os.pathsep.join(folder or os.getcwd() for folder in sys.path)


def die_with(parent: int) -> None:
    """End this process when `parent`, which started it, ends; at once where it has. Linux alone can do the first."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # even while a decoder hangs and holds the GIL
    if os.getppid() != parent:  # it died before we asked
        sys.exit()


def how_it_ended(status: int) -> str:
    """In words, from the return code that subprocess gives."""
    if status == -signal.SIGKILL:
        return "the decoder process was killed from outside (SIGKILL), perhaps for lack of memory"
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:  # a real-time signal
            name = f"signal {-status}"
        return f"the decoder process crashed ({name})"
    return f"the decoder process ended by itself, with status {status}"
