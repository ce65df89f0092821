"""What has been done in a folder: a line of JSON a video, added when it is done."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from videogn.types import InputError

NAME = "ledger.jsonl"


class Records(Mapping[str, dict[str, Any]]):
    """Path -> record, kept as the lines that they are: as dicts those of 240,000 videos take 1.2 GB."""

    def __init__(self) -> None:
        self._lines: dict[str, bytes] = {}

    def __getitem__(self, path: str) -> dict[str, Any]:
        return json.loads(self._lines[path])

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def put(self, path: str, line: bytes) -> None:
        self._lines[path] = line


class Ledger:
    """The ledger of a folder, locked against other processes while this object is open.

    Its first line holds the settings. A line that was cut off, as by a kill or a full disk, does not count: its video is done
    again. Of several lines for a path the last counts.

    Args:
        folder: made if need be. One that holds other people's files is refused: they might be written over.
        settings: how videos are written; plain data.

    Raises:
        InputError: the folder cannot be written, is in use, holds something else, or was prepared with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._path = folder / NAME
        self.records = Records()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not self._path.exists() and any(folder.iterdir()):
                raise InputError(f"out: {folder}: holds files that videogn prepare did not write; give a new folder with out=")
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise InputError(f"out: {folder}: cannot be written: {error.strerror}; give another folder with out=") from None
        try:
            self._lock(folder)
            self._read(folder, dict(settings))
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._file)

    def add(self, record: Mapping[str, Any]) -> None:
        """Write a record, whose key `path` names the video, wholly or not at all.

        Raises:
            OSError: it cannot be written, for instance because the disk is full.
        """
        self.records.put(record["path"], self._append(record))

    def _append(self, record: Mapping[str, Any]) -> bytes:
        line = json.dumps(record).encode()  # ASCII: bytes of names that are no text are escaped
        data = line + b"\n"
        size = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            os.ftruncate(self._file, size)
            raise
        return line

    def _lock(self, folder: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"out: {folder}: another videogn prepare is at work there; wait for it") from None

    def _read(self, folder: Path, settings: dict[str, Any]) -> None:
        first, size = None, 0
        with self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                size += len(line)
                record = _parsed(line)
                if size == len(line):
                    first = record
                elif record is not None and isinstance(record.get("path"), str):
                    self.records.put(record["path"], line)
        if not size:
            os.ftruncate(self._file, 0)
            self._append({"settings": settings})
            return
        before = None if first is None else first.get("settings")
        if not isinstance(before, dict):
            raise InputError(f"{self._path} line 1: holds no settings; it was not written by videogn prepare")
        differing = [key for key in settings | before if settings.get(key) != before.get(key)]
        if differing:
            was, now = (", ".join(f"{key}={_shown(of.get(key))}" for key in differing) for of in (before, settings))
            raise InputError(f"out: {folder}: was prepared with {was}, not {now}; give the same, or another folder with out=")
        os.ftruncate(self._file, size)  # less what was cut off


def written(folder: Path) -> set[str]:
    """Every file that a line of the ledger says was written, relative to the folder; it may be gone."""
    names = set()
    with (folder / NAME).open("rb") as file:
        for line in file:
            record = _parsed(line)
            if record is not None and record.get("written") is not None:
                names.add(str(record["output"]))
    return names


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
