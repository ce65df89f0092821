"""SIGTERM ends a command as Ctrl-C does: what it was at is undone, and it says how things stand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from videogn.types import Stopped


@contextmanager
def stopped_by_sigterm(message: str) -> Iterator[None]:
    """SIGTERM raises Stopped, with how things stand then; only the main thread of a program hears signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise Stopped(signum, message)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
