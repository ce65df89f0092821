"""A manifest: which videos there are, what each shows, and which split it belongs to.

A CSV with the columns path, label, video_id, split. `path` is relative to the manifest's folder or to `root`; `video_id`
names the recording (default: the path), so that two files of one recording cannot stand in two splits; `split` is train, val or
test.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from videogn.types import InputError

_PACKAGE = Path(__file__).parents[1]
_DATA = next(d for d in (_PACKAGE / "data", _PACKAGE.parent / "data") if d.is_dir())  # in the wheel, in the repository
SPLITS = ("train", "val", "test")
VIDEO_SUFFIXES = frozenset(
    [
        ".3gp",
        ".avi",
        ".flv",
        ".gif",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
    ]
)  # the containers people keep clips in; everything else in a class folder is left alone


class Entry(NamedTuple):
    path: str  # relative to the manifest's root, with forward slashes
    label: str
    video_id: str
    split: str


@dataclass(frozen=True)
class Manifest:
    """A validated list of videos.

    Attributes:
        root: folder that the paths are relative to.
        entries: one a video, in a fixed order.
        classes: the class names; a label's index in this list is the network's output for it.
        notes: what a user should know about how the list was made (splits drawn, splits missing).
    """

    root: Path
    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.entries)

    def split(self, name: str) -> Manifest:
        """The videos of one split, in the manifest's order."""
        return Manifest(self.root, tuple(e for e in self.entries if e.split == name), self.classes)

    def path(self, index: int) -> Path:
        return self.root / self.entries[index].path

    def targets(self) -> Int64[np.ndarray, " V"]:
        """Index in `classes` of every video's class."""
        index = {name: i for i, name in enumerate(self.classes)}
        return np.array([index[entry.label] for entry in self.entries], np.int64)

    def sha256(self) -> str:
        """Hash of the content (paths, labels, ids, splits, classes), not of where it lies."""
        digest = hashlib.sha256()
        for row in (*self.entries, self.classes):
            digest.update("\0".join(row).encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(Entry._fields)
            writer.writerows(self.entries)


def validated(
    root: Path, entries: Iterable[Entry], classes: Sequence[str] | None, place: str, notes: Sequence[str] = ()
) -> Manifest:
    """A manifest, or an InputError that names the place and the first thing wrong.

    Args:
        classes: the class names where a class list was given; else the labels found, sorted (numbers by value).
        place: what the error message starts with, for instance the file that the entries come from.
    """
    entries = tuple(entries)
    if not entries:
        raise InputError(f"{place}: no videos; give at least one for each of two classes")
    names = tuple(classes) if classes is not None else _sorted_labels({e.label for e in entries})
    known = set(names)
    split_of: dict[str, Entry] = {}
    for entry in entries:
        if entry.label not in known:
            raise InputError(f"{place}: {entry.path}: {unknown_label(entry.label, names)}")
        if entry.split not in SPLITS:
            raise InputError(f"{place}: {entry.path}: split {entry.split!r} is not one of {', '.join(SPLITS)}")
        first = split_of.setdefault(entry.video_id, entry)
        if first.split != entry.split:
            raise InputError(
                f"{place}: video_id {entry.video_id!r} is in two splits, {first.split} ({first.path}) and {entry.split} "
                f"({entry.path}); the score would be of videos seen in training: keep all files of a recording in one split"
            )
        if first.label != entry.label:
            raise InputError(
                f"{place}: video_id {entry.video_id!r} has two labels, {first.label!r} ({first.path}) and {entry.label!r} "
                f"({entry.path}); a video has one label"
            )
        if not (root / entry.path).is_file():
            raise InputError(f"{place}: {root / entry.path}: no such file; correct the path or dataset.root")
    if len(names) < 2:
        raise InputError(f"{place}: {len(names)} class ({', '.join(names)}); a classifier needs at least two")
    if not any(e.split == "train" for e in entries):
        raise InputError(f"{place}: no video in split train; there is nothing to learn from")
    return Manifest(root, entries, names, tuple(notes))


def unknown_label(label: str, classes: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(label, classes, n=1)
    hint = f"; nearest: {nearest[0]!r}" if nearest else ""
    return f"label {label!r} is not one of the {len(classes)} classes{hint}"


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Class names, one a line, in the order of the network's outputs.

    Args:
        path: a file, or the name of a list in data/, such as kinetics400.
    """
    ours = _DATA / f"{path}.txt"
    lines = read_lines(ours if ours.is_file() and not Path(path).is_file() else path, "class list")
    names = tuple(line.strip() for line in lines if line.strip())
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{path}: class {name!r} stands {count} times; every class is named once")
    return names


def read_lines(path: str | Path, what: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot read the {what}: {error.strerror}; correct the path") from None


def _sorted_labels(labels: set[str]) -> tuple[str, ...]:
    if all(label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))


class ManifestFile:
    """A data set given by its manifest CSV.

    Args:
        path: the CSV.
        root: folder that its paths are relative to; by default the CSV's folder.
        classes: file with the class names, one a line; by default the labels found, sorted.
        flip: probability that a training clip is mirrored.
    """

    def __init__(self, path: str, root: str | None, classes: str | None, flip: float) -> None:
        self.name = Path(path).stem
        self.flip = flip
        self._path = Path(path)
        self._root = Path(root) if root is not None else self._path.parent
        self._classes = classes

    def prepare(self) -> None:
        """Nothing to make: the videos are there already."""

    def manifest(self) -> Manifest:
        lines = read_lines(self._path, "manifest")
        reader = csv.DictReader(lines)
        missing = [column for column in ("path", "label", "split") if column not in (reader.fieldnames or ())]
        if missing:
            raise InputError(
                f"{self._path} line 1: no column {missing[0]!r}; the columns are path, label, video_id, split "
                "(video_id may be left out)"
            )
        classes = read_classes(self._classes) if self._classes is not None else None
        entries = []
        for row in reader:
            place = f"{self._path} line {reader.line_num}"
            for column in ("path", "label", "split"):
                if not (row[column] or "").strip():
                    raise InputError(f"{place}: no {column}; every row has path, label and split")
            if classes is not None and row["label"] not in classes:
                raise InputError(f"{place}: {unknown_label(row['label'], classes)}")
            entries.append(Entry(row["path"], row["label"], row.get("video_id") or row["path"], row["split"]))
        return validated(self._root, entries, classes, str(self._path))
