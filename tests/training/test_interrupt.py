"""What a signal is to a training, and what is no second one."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest

from videogn.training.interrupt import LastCheckpoint

INT, TERM = signal.SIGINT, signal.SIGTERM


def test_ranks_save_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes are over for one of them first; the others save with it, and neither stops nor saves at the next step."""
    ranks = [LastCheckpoint(Path("last.ckpt")) for _ in range(2)]
    saved: list[int] = []
    answers: list[list[bool]] = []

    def trainer(rank: int, decided: list[bool]) -> Any:
        one = Mock(spec=pl.Trainer, is_last_batch=False, accumulate_grad_batches=1, world_size=2)
        one.strategy.reduce_boolean_decision = lambda here, all: (answers[-1].append(here), decided.pop(0))[1]
        one.save_checkpoint = lambda path: saved.append(rank)
        return one

    for at, others_say, saves in ((599.0, [False], []), (601.0, [True, False], [0, 1]), (602.0, [False], [])):
        saved.clear()
        answers.append([])
        for rank, checkpoint in enumerate(ranks):
            monkeypatch.setattr(time, "monotonic", lambda now=at - rank * 2: now)
            checkpoint.on_train_batch_end(trainer(rank, list(others_say)), Mock(spec=pl.LightningModule), None, None, 0)
            checkpoint.on_train_batch_start()  # not told to stop
        assert saved == saves
    assert answers == [[False, False], [True, False, False, False], [False, False]]


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
