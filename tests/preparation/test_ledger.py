"""The ledger after kills, full disks and other people's lines."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from videogn.preparation import ledger as module
from videogn.preparation.ledger import Ledger
from videogn.types import InputError

SETTINGS = {"crf": 20}


def record(path: str) -> dict:
    return {"path": path, "reason": "", "seconds": 1.5}


@pytest.mark.parametrize("cut", range(1, 60))
def test_cut_off_anywhere_it_has_the_whole_lines_and_goes_on(cut: int, tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS) as ledger:
        for path in ("a", "b, \udce9\n"):
            ledger.add(record(path))
    file = tmp_path / "ledger.jsonl"
    content = file.read_bytes()
    file.write_bytes(content[:-cut])
    whole = content[:-cut].count(b"\n") - 1
    with Ledger(tmp_path, SETTINGS) as ledger:
        assert list(ledger.records) == ["a", "b, \udce9\n"][:whole]
        ledger.add(record("c"))
    with Ledger(tmp_path, SETTINGS) as ledger:
        assert list(ledger.records) == [*["a", "b, \udce9\n"][:whole], "c"]
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_a_settings_line_cut_off_is_a_beginning(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text('{"settings": {"cr')
    with Ledger(tmp_path, SETTINGS) as ledger:
        assert ledger.records == {}
    with pytest.raises(InputError, match="was prepared with crf=20, not crf=23"):
        Ledger(tmp_path, {"crf": 23})


def test_the_last_line_of_a_path_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.add(record("a"))
        ledger.add({**record("a"), "reason": "changed"})
    with Ledger(tmp_path, SETTINGS) as ledger:
        assert ledger.records["a"]["reason"] == "changed"


def test_a_line_that_finds_no_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = os.write

    def half(file: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return genuine(file, data[: len(data) // 2])

    with Ledger(tmp_path, SETTINGS) as ledger:
        ledger.add(record("a"))
        before = (tmp_path / "ledger.jsonl").read_bytes()
        monkeypatch.setattr(module.os, "write", half)
        with pytest.raises(OSError, match="No space left"):
            ledger.add(record("b"))
        monkeypatch.undo()
        assert (tmp_path / "ledger.jsonl").read_bytes() == before
        assert list(ledger.records) == ["a"]


def test_only_one_process_at_a_time(tmp_path: Path) -> None:
    with Ledger(tmp_path, SETTINGS), pytest.raises(InputError, match="another videogn prepare is at work"):
        Ledger(tmp_path, SETTINGS)
    with Ledger(tmp_path, SETTINGS):
        pass


@pytest.mark.parametrize("content", ['{"path": "a"}\n', '{"settings": 3}\n', "my notes\n"])
def test_a_file_that_is_no_ledger(content: str, tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text(content)
    with pytest.raises(InputError, match="holds no settings"):
        Ledger(tmp_path, SETTINGS)
    assert (tmp_path / "ledger.jsonl").read_text() == content
