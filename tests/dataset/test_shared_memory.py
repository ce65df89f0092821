from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from videogn.dataset.shared_memory import SHARED_MEMORY, loader_bytes, shared_memory_warning


@pytest.fixture
def docker(monkeypatch):
    """/dev/shm as Docker makes it: 64 MB in pages of 4 KiB."""
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_bavail=16384, f_frsize=4096))


def test_too_little(docker):
    warning = shared_memory_warning(800_000_000)
    assert warning is not None
    assert "\n" not in warning
    assert "67 MB are free" in warning
    assert "may need 800 MB" in warning
    assert "--shm-size=2g" in warning
    assert "num_workers=0" in warning


def test_enough(docker):
    assert shared_memory_warning(16384 * 4096) is None
    assert shared_memory_warning(16384 * 4096 + 1) is not None


def test_no_such_folder(tmp_path):
    assert shared_memory_warning(10**18, tmp_path / "missing") is None


class Clips:
    def __len__(self):
        return 12

    def __getitem__(self, row):
        return torch.zeros(2**20, dtype=torch.uint8)


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="no /dev/shm here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_a_loader_needs():
    """Against what torch really puts there while training works on a batch."""
    batch_bytes, most = 2 * 2**20, 0
    before = used()
    for _ in DataLoader(Clips(), batch_size=2, num_workers=2):
        most = max(most, used() - before)
    # The counter is the machine's, and others use it: the bound is what matters.
    assert loader_bytes(batch_bytes, 2) == 5 * batch_bytes
    assert most <= loader_bytes(batch_bytes, 2) + 2**20
    assert loader_bytes(batch_bytes, 0) == 0


def used() -> int:
    found = os.statvfs(SHARED_MEMORY)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
