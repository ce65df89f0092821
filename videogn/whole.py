"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside it to write to, moved to `path` at the end and removed on an error or on Ctrl-C; makes its folder.

    It lies in a new folder that nobody could have put a link into.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Its name is plain ASCII, which every library opens.
    with tempfile.TemporaryDirectory(prefix=".videogn-", dir=path.parent) as folder:
        unfinished = Path(folder) / f"unfinished{path.suffix if path.suffix.isascii() else ''}"
        yield unfinished
        os.replace(unfinished, path)
