"""Signals while a command undoes what it was at."""

from __future__ import annotations

import os
import signal
import time
from importlib.machinery import ExtensionFileLoader

import pytest

from videogn.cli.stop import stopped_by_sigterm
from videogn.types import Stopped


class Loading(ExtensionFileLoader):
    """Is told to stop when it is half done."""

    whole = False

    def exec_module(self, module: object) -> None:
        os.kill(os.getpid(), self.signum)
        time.sleep(0.01)
        self.whole = True

    def __init__(self, signum: int) -> None:
        super().__init__("library", "library.so")
        self.signum = signum


def load_and_wait(loading: Loading) -> None:
    with stopped_by_sigterm("undone"):
        loading.exec_module(None)
        time.sleep(5)


def stop_at_once() -> None:
    with stopped_by_sigterm("undone"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


@pytest.mark.parametrize(("signum", "ends"), [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)])
def test_a_library_is_loaded_whole_before_a_signal_is_heard(signum: int, ends: type[BaseException]) -> None:
    """An exception in it ends the process by SIGSEGV or SIGABRT, as onnx's does."""
    loading, before = Loading(signum), signal.getsignal(signum)
    with pytest.raises(ends):
        load_and_wait(loading)
    assert loading.whole
    assert signal.getsignal(signum) is before


def test_elsewhere_it_is_heard_at_once() -> None:
    with pytest.raises(Stopped, match="undone"):
        stop_at_once()
