"""Checkpoints that know whether they are whole.

torch writes a zip file and does not compare what it reads with the checksums in it: a bit that flipped becomes another weight.
The file's comment, which every reader passes over, holds the SHA-256 of all that stands before.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

_MARK = b"videogn sha256 "
_COMMENT_BYTES = len(_MARK) + 64
_LENGTH_BYTES = 2  # of the comment, the last of a zip file without one
_CHUNK = 2**22


class Damaged(ValueError):
    """A file that is not what was written."""


def save(content: Any, path: Path, previous: Path | None = None) -> None:
    """Write a checkpoint whole or not at all, with its seal.

    Args:
        content: what torch.save takes.
        path: of the file; what is there before stays until all is written, and on the disk.
        previous: where what is there before is kept, in the same folder.

    Raises:
        OSError: by the path, where the disk is full or does not take it; what is there before stays.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")  # one name: what a killed process leaves, the next one takes
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished.unlink(missing_ok=True)
    try:
        with unfinished.open("xb") as file:
            writer = _Writer(file)
            try:
                torch.save(content, writer)  # pyright: ignore[reportArgumentType] - it writes and flushes, no more
            except RuntimeError:
                if writer.error is not None:
                    raise writer.error from None
                raise
            comment = _MARK + writer.digest.hexdigest().encode()
            file.seek(-_LENGTH_BYTES, os.SEEK_END)
            file.write(struct.pack("<H", len(comment)) + comment)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.is_file():
            _keep(path, previous)
        os.replace(unfinished, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def check(path: Path) -> None:
    """Raises Damaged where the file is not what `save` wrote; a whole archive without a seal, of an older version, is taken."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size < _COMMENT_BYTES + _LENGTH_BYTES:
            raise Damaged(f"{size} bytes are no checkpoint")
        file.seek(-_COMMENT_BYTES, os.SEEK_END)
        comment = file.read()
        if not comment.startswith(_MARK):
            if not zipfile.is_zipfile(file):  # its directory is at the end
                raise Damaged("its end is missing")
            return
        file.seek(0)
        digest, left = hashlib.sha256(), size - _COMMENT_BYTES - _LENGTH_BYTES
        while left > 0:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                raise Damaged("it became shorter while it was read")
            digest.update(chunk)
            left -= len(chunk)
        digest.update(bytes(_LENGTH_BYTES))
        if digest.hexdigest().encode() != comment[len(_MARK) :]:
            raise Damaged("its bytes are not those that were written")


class _Writer:
    """A file that hashes what it takes, and remembers why it did not: torch says only at which byte."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            self._file.write(content)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(content)
        return len(content)

    def flush(self) -> None:
        self._file.flush()


def _keep(path: Path, previous: Path) -> None:
    """Under both names, so that there is no moment without `path`; where a file system has no links, under the new one alone."""
    link = previous.with_name(f".{previous.name}.unfinished")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:
        os.replace(path, previous)
    else:
        os.replace(link, previous)
