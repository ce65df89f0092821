"""What becomes of training videos that cannot be read."""

from __future__ import annotations

import csv
import fcntl
from collections.abc import Callable
from pathlib import Path

from videogn.dataset.manifest import Manifest
from videogn.types import DeadVideo, Findings

COLUMNS = ("path", "reason", "seconds")


class Quarantine:
    """Each is told once and written at once to a CSV, which `dataset.exclude` takes; too many of them end the run.

    What the CSV has already, of the run before it was resumed or of another device's process, is not told and written again.

    Args:
        path: the CSV; the processes of several devices write to one.
        train: the split, whose paths are written as it has them.
        max_bad_fraction: of its videos, that one device's process may meet.
    """

    def __init__(self, path: Path, train: Manifest, max_bad_fraction: float) -> None:
        self.paths: list[str] = []
        self._path = path
        self._train = train
        self._max_bad_fraction = max_bad_fraction
        self._rows: set[int] = set()

    def add(self, dead: DeadVideo, tell: Callable[[str], None]) -> None:
        """Raises Findings where the share is passed."""
        if dead.video in self._rows:
            return
        self._rows.add(dead.video)
        self.paths.append(dead.path)
        path = self._train.entries[dead.video].path
        with self._path.open("a+", newline="", encoding="utf-8", errors="surrogateescape") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            there = {row[0] for row in csv.reader(file) if row}
            writer = csv.writer(file)
            if not there:
                writer.writerow(COLUMNS)
            if path not in there:
                tell(f"skipped {dead.path}: {dead.reason}")
                writer.writerow((path, dead.reason, f"{dead.seconds:.2f}"))
        share = len(self._rows) / len(self._train)
        if share > self._max_bad_fraction:
            raise Findings(
                f"{len(self._rows)} of {len(self._train)} training videos cannot be read ({share:.1%}), and "
                f"dataset.max_bad_fraction={self._max_bad_fraction} allows no more; {self._path} names them: mend them, leave "
                "them out with dataset.exclude=FILE, or allow more"
            )
