"""Files of a few kilobytes that torch would make megabytes of."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from videogn.export.torch_export import read_bundle
from videogn.packing import check_unpacked_size
from videogn.types import InputError
from videogn.weight.read import read_torch

MEGABYTES = 4


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """What torch.save wrote, its members compressed: torch reads it all the same."""
    content = io.BytesIO()
    torch.save({"a.weight": torch.zeros(MEGABYTES * 2**18)}, content)
    path = tmp_path / "packed.pth"
    with zipfile.ZipFile(content) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in plain.namelist():
            file.writestr(name, plain.read(name))
    assert path.stat().st_size < 2**16
    assert torch.load(path, weights_only=True)["a.weight"].numel() == MEGABYTES * 2**18
    return path


@pytest.mark.parametrize(
    ("read", "error", "reason"),
    [
        (check_unpacked_size, ValueError, "its archive unpacks to more than its size"),
        (read_torch, InputError, "its archive unpacks to more than its size; nothing"),
        (read_bundle, InputError, r"not a \.pt2 of torch, or a damaged one"),
    ],
)
def test_it_is_refused(packed: Path, read: Callable, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        read(packed)


def test_what_torch_writes_is_not(tmp_path: Path) -> None:
    for number, content in enumerate([{}, {"a": torch.zeros(3)}, {"a": torch.zeros(2**20), "b": "text" * 2**18}]):
        torch.save(content, tmp_path / f"{number}.pth")
        check_unpacked_size(tmp_path / f"{number}.pth")
