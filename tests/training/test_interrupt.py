"""What a signal is to a training, and what is no second one."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from videogn.training.interrupt import LastCheckpoint

INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.mark.parametrize(
    ("signals", "ends"),
    [
        ([(TERM, 0.0)], None),
        ([(TERM, 0.0), (TERM, 0.01), (TERM, 0.5)], None),  # the parent is gone, and had three threads
        ([(TERM, 0.0), (TERM, 1.1)], TERM),
        ([(INT, 0.0)], None),
        ([(INT, 0.0), (INT, 0.01)], INT),
        ([(INT, 0.0), (TERM, 0.01)], TERM),
    ],
    ids=str,
)
def test_the_second_signal_ends_it_at_once(
    monkeypatch: pytest.MonkeyPatch, signals: list[tuple[signal.Signals, float]], ends: signal.Signals | None
) -> None:
    ended = []
    monkeypatch.setattr(signal, "raise_signal", ended.append)
    before = {signum: signal.getsignal(signum) for signum in (INT, TERM)}
    checkpoint = LastCheckpoint(Path("last.ckpt"))
    try:
        for signum, at in signals:
            monkeypatch.setattr(time, "monotonic", lambda at=at: 100.0 + at)
            checkpoint._note(signum, None)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert ended == ([] if ends is None else [ends])
