"""Text files with `path label` a line, or `folder num_frames label`, as PySlowFast and mmaction2 write them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from videogn.dataset.columns import Entry
from videogn.dataset.files import first_names
from videogn.dataset.manifest import Manifest, Missing, read_classes, unknown_label, validated
from videogn.dataset.split import split_groups
from videogn.dataset.text import read_lines
from videogn.types import InputError


class _Row(NamedTuple):
    path: str
    label: str
    place: str  # its line


class PathList:
    """One list that is divided 70/15/15 by file (`path`), or one list a split (`train`, `val`, `test`).

    Args:
        path: the only list; or null.
        train, val, test: a list each; or null. Without test the val videos are tested on.
        root: folder that the paths are relative to; by default the list's folder.
        separator: stands between path and label; null is any white space, and a backslash with a t is a tab. The line is cut
            at its last separator, so that paths keep their spaces.
        classes: file with the class names, one a line. Labels that are numbers index it.
        split_seed: seed of the division of `path`.
        flip: probability that a training clip is mirrored; false is 0, true 0.5.
        missing: see `validated`.
    """

    def __init__(
        self,
        path: str | None,
        train: str | None,
        val: str | None,
        test: str | None,
        root: str | None,
        separator: str | None,
        classes: str | None,
        split_seed: int,
        flip: float | int,
        missing: Missing = "error",
    ) -> None:
        lists = {"train": train, "val": val, "test": test}
        self._lists = {split: Path(file) for split, file in lists.items() if file is not None}
        if (path is None) == (not self._lists):
            raise InputError(
                "dataset=path_list: give either dataset.path=FILE, divided 70/15/15, or dataset.train=FILE dataset.val=FILE "
                "[dataset.test=FILE]"
            )
        if path is None and not {"train", "val"} <= self._lists.keys():
            raise InputError("dataset=path_list: dataset.train and dataset.val are both needed; dataset.test may be left out")
        self.name = Path(path or str(train)).stem
        self.flip = flip
        self._path = Path(path) if path is not None else None
        self._root = Path(root) if root is not None else (self._path or self._lists["train"]).parent
        if separator is not None and not (isinstance(separator, str) and separator):
            raise InputError(f"dataset.separator={separator!r}; give what stands between path and label, such as ',' or '\\t'")
        self._separator = separator and separator.replace("\\t", "\t")
        self._classes = classes
        self._split_seed = split_seed
        self._missing: Missing = missing

    def manifest(self) -> Manifest:
        classes = read_classes(self._classes) if self._classes is not None else None
        if self._path is not None:
            rows = self._rows(self._path, classes)
            paths = [row.path for row in rows]
            splits = split_groups(first_names(self._root, paths), [row.label for row in rows], self._split_seed)
            notes = [
                f"splits: 70/15/15 by file, stratified by label, dataset.split_seed={self._split_seed}",
                "a path list has no groups: files of one recording may stand in two splits and flatter the score",
            ]
        else:
            rows, splits, notes = [], [], []
            for split, file in self._lists.items():
                rows += self._rows(file, classes)
                splits += [split] * (len(rows) - len(splits))
        entries = [Entry(row.path, row.label, row.path, split) for row, split in zip(rows, splits, strict=True)]
        place = str(self._path or f"dataset=path_list root={self._root}")
        return validated(self._root, entries, classes, place, notes, self._missing, at=lambda row: rows[row].place)

    def _rows(self, file: Path, classes: tuple[str, ...] | None) -> list[_Row]:
        rows = []
        for number, line in enumerate(read_lines(file, "path list"), start=1):
            if not line.strip():
                continue
            parts = line.strip().rsplit(self._separator, 1)
            if len(parts) != 2 or not parts[0].strip() or not parts[1].strip():
                separator = "white space" if self._separator is None else repr(self._separator)
                raise InputError(
                    f"{file} line {number}: {line.strip()!r} has no label; a line is `path label`, divided by {separator} "
                    "(dataset.separator)"
                )
            path, label = parts[0].strip(), parts[1].strip()
            folder, _, count = path.rpartition(" ")
            if count.isdecimal() and os.path.isdir(self._root / folder):  # Path.is_dir raises for a name that is too long
                path = folder  # mmaction2's lists of images: `folder num_frames label`
            if classes is not None and label not in classes:
                if not label.isdecimal() or int(label) >= len(classes):
                    raise InputError(f"{file} line {number}: {unknown_label(label, classes)} of {self._classes}")
                label = classes[int(label)]
            rows.append(_Row(path, label, f"{file} line {number}"))
        if not rows:
            raise InputError(f"{file}: an empty list; a line is `path label`")
        return rows
