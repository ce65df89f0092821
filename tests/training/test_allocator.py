"""Pages that the system has to give out anew, counted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from videogn.training import allocator
from videogn.training.allocator import keep_memory

COUNT = """
import resource, sys, torch
from videogn.training.allocator import keep_memory
if sys.argv[1] == "keep": assert keep_memory()
def step(): torch.ones(40 * 2**20, dtype=torch.uint8).add_(torch.ones(40 * 2**20, dtype=torch.uint8))
for _ in range(24): step()  # where the system put the heap decides how many of them it grows: 4 to 10 were seen
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is of Linux")
def test_the_next_step_finds_the_memory_of_this_one() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    found = {}
    for way in ("give", "keep"):
        done = subprocess.run([sys.executable, "-c", COUNT, way], capture_output=True, text=True, env=environment, check=True)
        found[way] = int(done.stdout)
    given, kept = found["give"], found["keep"]
    # Ten blocks of 40 MiB: 20 pages of 2 MiB each, or 10,240 of 4 KiB, by the system's settings.
    assert given >= 200
    assert kept <= given / 20


def test_what_the_user_says_of_malloc_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: None) -> None:
        raise AssertionError

    monkeypatch.setattr(allocator.ctypes, "CDLL", refuse)
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    assert not keep_memory()


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in allocator._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not keep_memory()
