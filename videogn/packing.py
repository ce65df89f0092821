"""Zip archives of tensors, which torch writes without compression."""

from __future__ import annotations

import zipfile
from pathlib import Path


def check_unpacked_size(path: Path) -> None:
    """Before anything of it is read: torch would unpack a file made to fill the memory.

    Raises:
        ValueError: the members together are larger than the file, which those of torch.save never are.
        zipfile.BadZipFile: no zip archive.
    """
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise ValueError("its archive unpacks to more than its size")
