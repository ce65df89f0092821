"""Runtimes that fail in every way: what tests/export/test_runtime.py opens."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np

from videogn.types import InputError


def doubles(path: Path, threads: int, trust: bool):
    print("a runtime that talks")
    os.write(1, b"and talks\n")
    return lambda clips: 2 * clips.reshape(len(clips), -1)[:, :3]


def crashes_at_once(path: Path, threads: int, trust: bool):
    os.kill(os.getpid(), signal.SIGSEGV)


def crashes_on_two(path: Path, threads: int, trust: bool):
    def run(clips: np.ndarray) -> np.ndarray:
        if len(clips) == 2:
            os.abort()
        return clips.reshape(len(clips), -1)

    return run


def refuses(path: Path, threads: int, trust: bool):
    raise InputError(f"{path}: not one of mine")


def fails(path: Path, threads: int, trust: bool):
    def run(clips: np.ndarray) -> np.ndarray:
        raise RuntimeError("no such\noperator")

    return run


def leaves(path: Path, threads: int, trust: bool):
    print("out of licences", file=sys.stderr)
    os._exit(3)


def counts_threads(path: Path, threads: int, trust: bool):
    return lambda clips: np.full((len(clips), 2), [threads, trust])
