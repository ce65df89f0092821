"""The bar keeps out of the way of the answers."""

from __future__ import annotations

import io
import sys

import pytest

from videogn.prediction.progress import PredictionProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_row_is_there_once_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not when the buffer of a pipe is full."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw)))  # type: ignore[arg-type]
    with PredictionProgress(2) as progress, progress.hidden():
        print("row")
    assert raw.getvalue() == b"row\n"


def test_rows_on_the_terminal_of_the_bar_stand_on_lines_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    with PredictionProgress(3) as progress:
        progress.share(0.5)
        for number in range(2):
            with progress.hidden():
                print(f"row {number}")
            progress.advance()
        progress.share(0.5)
    written = screen.getvalue()
    for number in range(2):
        before, _ = written.split(f"row {number}\n")
        assert "files" in before  # the bar was there
        assert before.endswith("\x1b[2K")  # and its line has been erased
    assert "2/3" in written
