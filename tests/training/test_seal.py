"""A checkpoint is written whole or not at all, and is known where it is not what was written."""

from __future__ import annotations

import errno
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from videogn.training import seal
from videogn.training.seal import check, save

CONTENT = {"weights": torch.arange(5000, dtype=torch.float32), "epoch": 3, "names": ["a", "é"]}


def test_torch_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "last.ckpt"
    save(CONTENT, path)
    check(path)
    for mapped in (False, True):
        found = torch.load(path, weights_only=True, mmap=mapped)
        assert torch.equal(found.pop("weights"), CONTENT["weights"])
        assert found == {"epoch": 3, "names": ["a", "é"]}
    # By another implementation: the comment of a zip file, and the hash of what stands before it, whose length was 0 then.
    with zipfile.ZipFile(path) as file:
        comment = file.comment
        assert file.testzip() is None
    body = path.read_bytes()[: -len(comment) - 2] + b"\0\0"
    assert comment == b"videogn sha256 " + hashlib.sha256(body).hexdigest().encode()
    assert list(path.parent.iterdir()) == [path]


def test_every_cut_and_every_flipped_bit_is_known(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save(CONTENT, path)
    whole = path.read_bytes()
    damaged = 0
    for place in [*range(0, len(whole), 997), *range(len(whole) - 100, len(whole))]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        damaged += is_known(path)
        path.write_bytes(whole[:place])
        # A part of the comment is no part of what torch reads.
        assert is_known(path) or place >= len(whole) - 79, f"cut at byte {place}"
    # The mark itself and the length of the comment are not sealed: torch or zip read the one, nobody the other.
    assert damaged >= len(range(0, len(whole), 997)) + 100 - len(b"videogn sha256 ") - 2


def is_known(path: Path) -> bool:
    """By the seal, or by torch where the file has none any more."""
    try:
        check(path)
        torch.load(path, weights_only=True)
    except Exception:  # of any kind
        return True
    return False


def test_one_without_a_seal_is_taken_as_it_is(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "old.ckpt")
    check(tmp_path / "old.ckpt")


def test_the_one_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for epoch in range(3):
        save({"epoch": epoch}, last, previous)
    assert (torch.load(last)["epoch"], torch.load(previous)["epoch"]) == (2, 1)

    def refuse(*paths: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    save({"epoch": 3}, last, previous)
    assert (torch.load(last)["epoch"], torch.load(previous)["epoch"]) == (3, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


class FullDisk(seal._Writer):
    def write(self, content: Any) -> int:
        if self.digest.copy().digest() != hashlib.sha256().digest():  # something has been written
            self.error = OSError(errno.ENOSPC, "No space left on device")
            raise self.error
        return super().write(content)


def test_a_full_disk_leaves_what_was_there_and_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    save(CONTENT, path)
    before = path.read_bytes()
    monkeypatch.setattr(seal, "_Writer", FullDisk)
    with pytest.raises(OSError, match="No space left on device") as raised:
        save(CONTENT, path, tmp_path / "previous.ckpt")
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
