"""SIGTERM ends a command as Ctrl-C does: what it was at is undone, and it says how things stand."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ExtensionFileLoader
from types import FrameType

from videogn.types import Stopped


@contextmanager
def stopped_by_sigterm(message: str) -> Iterator[None]:
    """SIGTERM raises Stopped, with how things stand then; only the main thread of a program hears signals.

    While a library of compiled code is loaded, SIGTERM and Ctrl-C wait until it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        if _loads_an_extension(frame):  # which an exception in it would end with the process, and nothing would be undone
            again = threading.Timer(0.05, os.kill, (os.getpid(), signum))
            again.daemon = True
            again.start()
        elif signum == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise Stopped(signum, message)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _loads_an_extension(frame: FrameType | None) -> bool:
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), ExtensionFileLoader):
            return True
        frame = frame.f_back
    return False
