"""The thread that decodes: order, errors, and that it lives on."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from videogn.decoder.isolated import IsolatedDecoder
from videogn.decoder.pyav import PyAVDecoder
from videogn.prediction.read_ahead import DecodingThread, ReadAhead


def test_one_item_is_made_ahead_and_no_more() -> None:
    made: list[int] = []
    threads: set[int] = set()

    def items() -> Iterator[int]:
        for number in range(5):
            threads.add(threading.get_ident())
            made.append(number)
            yield number

    thread = DecodingThread()
    ahead = ReadAhead(thread, items())
    for number, item in enumerate(ahead):
        thread.submit(lambda: None).result()  # what was asked for has been made
        assert item == number
        assert len(made) == min(number + 2, 5)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_in_the_thread_comes_out_and_hangs_nothing(error: BaseException) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise error

    thread = DecodingThread()
    ahead = ReadAhead(thread, items())
    assert next(ahead) == 1
    with pytest.raises(type(error)):
        next(ahead)
    assert list(ReadAhead(thread, iter([1, 2]))) == [1, 2]  # the thread goes on


def test_several_share_the_thread_without_waiting_for_each_other() -> None:
    thread = DecodingThread()
    one, other = (ReadAhead(thread, iter(range(start, start + 50))) for start in (0, 100))
    assert [next(other), next(one), next(one), next(other)] == [100, 0, 1, 101]
    assert list(one) == list(range(2, 50))
    assert list(other) == list(range(102, 150))


def test_closing_ends_the_generator_in_the_thread() -> None:
    closed_in: list[str] = []

    def items() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed_in.append(threading.current_thread().name)

    thread = DecodingThread()
    ahead = ReadAhead(thread, items())
    next(ahead)
    ahead.close()
    thread.submit(lambda: None).result()
    assert closed_in == ["videogn decoding"]


def test_the_process_of_an_isolated_decoder_lives_from_file_to_file(write) -> None:
    """It dies with the thread that started it: a thread a file would start a process a file."""
    path = write("v.mp4", ("red", 3))
    decoder = IsolatedDecoder(PyAVDecoder())
    thread = DecodingThread()
    processes = set()
    for _ in range(3):
        thread.submit(lambda: decoder.open(path).close()).result()
        time.sleep(0.05)
        assert decoder._process is not None
        assert decoder._process.is_alive()
        processes.add(decoder._process.pid)
    assert len(processes) == 1


def test_the_thread_ends_with_its_owner() -> None:
    owner = DecodingThread()
    thread = owner.submit(threading.current_thread).result()
    assert thread.is_alive()
    del owner
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_python_ends_while_the_thread_is_in_torch() -> None:
    """A daemon that is in C++ then would abort the process, whatever its status was to be."""
    program = """
import sys, time
import torch
from videogn.prediction.read_ahead import DecodingThread

def forever():
    frames = torch.zeros(64, 3, 256, 256, dtype=torch.uint8)
    while True:
        torch.nn.functional.interpolate(frames, size=(200, 200), mode="bilinear", antialias=True)

thread = DecodingThread()
thread.submit(forever)
time.sleep(0.2)
sys.exit(130)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")
