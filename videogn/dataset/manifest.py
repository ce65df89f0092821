"""A manifest: which videos there are, what each shows, and which split it belongs to.

A CSV with the columns path, label, video_id, split and, if wanted, group. `path` is relative to the manifest's folder or to
`root`; `video_id` names the recording (default: the path), so that two files of one recording cannot stand in two splits;
`split` is train, val or test; `group` is what a video has in common with others.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64

from videogn.dataset.columns import SPLITS, Entries, Entry
from videogn.dataset.files import identities
from videogn.dataset.storage import place_of
from videogn.dataset.text import label_fault, read_lines, read_table
from videogn.types import InputError

_PACKAGE = Path(__file__).parents[1]
_DATA = next(d for d in (_PACKAGE / "data", _PACKAGE.parent / "data") if d.is_dir())  # in the wheel, in the repository
Missing = Literal["error", "wrong", "leave_out"]
_MAX_DIGITS = 18  # of a number that an int64 holds
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


@dataclass(frozen=True)
class Manifest:
    """A validated list of videos.

    Attributes:
        root: folder that the paths are relative to; as a text, the folder or address of the shards that the videos lie in.
        entries: one a video, in a fixed order; kept in columns, whatever sequence they come in.
        classes: the class names; a label's index in this list is the network's output for it.
        notes: what a user should know about how the list was made (splits drawn, videos missing).
        missing: videos of the data set whose files are not there: those of train are left out of `entries`.
    """

    root: Path | str
    entries: Sequence[Entry]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)
    missing: tuple[Entry, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.entries, Entries):
            object.__setattr__(self, "entries", Entries(self.entries))

    @property
    def _columns(self) -> Entries:
        assert isinstance(self.entries, Entries)
        return self.entries

    def __len__(self) -> int:
        return len(self.entries)

    def split(self, name: str) -> Manifest:
        """The videos of one split, in the manifest's order."""
        rows = np.flatnonzero(self._columns.split_numbers == SPLITS.index(name))
        return Manifest(self.root, self._columns.take(rows), self.classes)

    def path(self, index: int) -> Path | str:
        """What a decoder opens, and what messages and results call the video."""
        path = self.entries[index].path
        return self.root / path if isinstance(self.root, Path) else f"{self.root}/{path}"

    @property
    def place(self) -> str:
        """The root as it is known from everywhere."""
        return str(self.root.absolute()) if isinstance(self.root, Path) else place_of(self.root)

    def is_verified(self, index: int) -> bool:
        """Whether the file was decoded whole once, and still has the size it had then."""
        size = int(self._columns.num_bytes[index])
        try:
            return size > 0 and os.stat(self.path(index)).st_size == size
        except OSError:
            return False

    def targets(self) -> Int64[np.ndarray, " V"]:
        """Index in `classes` of every video's class."""
        index = {name: i for i, name in enumerate(self.classes)}
        columns = self._columns
        return np.array([index[name] for name in columns.label_names], np.int64)[columns.label_numbers]

    def sha256(self) -> str:
        """Hash of the content (paths, labels, ids, splits, classes), not of where it lies or whether it was verified."""
        digest = hashlib.sha256()
        for row in (*(entry[:4] for entry in self.entries), self.classes):
            digest.update("\0".join(row).encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(Entry._fields)
            writer.writerows(self.entries)


def validated(
    root: Path | str,
    entries: Iterable[Entry],
    classes: Sequence[str] | None,
    place: str,
    notes: Sequence[str] = (),
    missing: Missing = "error",
    absent: Set[int] = frozenset(),
    at: Callable[[int], str] | None = None,
    files: Sequence[str] | None = None,
) -> Manifest:
    """A manifest, or an InputError that names the place and the first thing wrong. A file that is named again is counted once.

    Args:
        classes: the class names where a class list was given; else the labels found, sorted (numbers by value).
        place: what the error message starts with, for instance the file that the entries come from.
        missing: what a video whose file is not there is: an "error"; or "wrong": left out of train, while in val and test it
            stays and counts as wrong; or "leave_out" in all splits. The last two are noted, with their numbers.
        absent: places of the entries whose files are known not to be there.
        at: what an error of an entry starts with, by its place among them, such as a line of the file; by default `place`.
        files: what file each entry is, equal where two are one; by default they are looked for below `root`.
    """
    if missing not in ("error", "wrong", "leave_out"):
        raise InputError(f"dataset.missing={missing}; use error, wrong or leave_out")
    entries = tuple(entries)
    if not entries:
        raise InputError(f"{place}: no videos; give at least one for each of two classes")
    where = at if at is not None else lambda row: place
    faults = {label: fault for label in {e.label for e in entries} if (fault := label_fault(label))}
    if faults:
        row, label = next((row, e.label) for row, e in enumerate(entries) if e.label in faults)
        raise InputError(f"{where(row)}: {entries[row].path!r}: label {label!r} {faults[label]}")
    names = tuple(classes) if classes is not None else _sorted_labels({e.label for e in entries})
    known = set(names)
    found = files if files is not None else identities(Path(root), [entry.path for entry in entries])
    absent = {row for row, file in enumerate(found) if file is None} | absent
    video_of: dict[str, int] = {}
    file_of: dict[str, int] = {}
    again = []
    for row, (entry, file) in enumerate(zip(entries, found, strict=True)):
        if entry.label not in known:
            raise InputError(f"{where(row)}: {entry.path}: {unknown_label(entry.label, names)}")
        if entry.split not in SPLITS:
            raise InputError(f"{where(row)}: {entry.path}: split {entry.split!r} is not one of {', '.join(SPLITS)}")
        recording = video_of.setdefault(entry.video_id, row)
        same = file_of.setdefault(file or os.path.normpath(entry.path), row)
        if recording != row or same != row:
            for what, first in ((f"video_id {entry.video_id!r}", recording), (f"one file, {entry.path},", same)):
                if fault := _contradiction(what, entries[first], entry):
                    raise InputError(f"{where(row)}: {fault}" + (f" (the other: {at(first)})" if at is not None else ""))
        if same != row:
            again.append(row)
        if row in absent and missing == "error":
            raise InputError(f"{where(row)}: {Path(root) / entry.path}: no such file; correct the path or dataset.root")
    if len(names) < 2:
        raise InputError(f"{place}: {len(names)} class ({', '.join(names)}); a classifier needs at least two")
    if len(absent) == len(entries):
        raise InputError(
            f"{place}: none of its {len(entries)} videos is there, such as {Path(root) / entries[0].path}; correct dataset.root"
        )
    if again:
        notes = (*notes, f"{len(again):,} videos are named again, such as {entries[again[0]].path}: counted once")
    once = set(range(len(entries))).difference(again)
    lost = tuple(entries[row] for row in sorted(absent & once))
    if absent:
        notes = (*notes, _missing_note([entries[row] for row in once], lost, missing))
    if absent or again:
        left_out = {row for row in absent if missing != "wrong" or entries[row].split == "train"}
        entries = tuple(entries[row] for row in sorted(once - left_out))
    if not entries:
        raise InputError(f"{place}: no video is left; see dataset.missing for files that are not there")
    return Manifest(root, entries, names, tuple(notes), lost)


def _contradiction(what: str, first: Entry, second: Entry) -> str | None:
    """Why two entries cannot be of one recording or file, `what`; None where they can."""
    if first.split != second.split:
        return (
            f"{what} is in two splits, {first.split} ({first.path}) and {second.split} ({second.path}); the score would be of "
            "videos seen in training: keep all files of a recording in one split"
        )
    if first.label != second.label:
        return (
            f"{what} has two labels, {first.label!r} ({first.path}) and {second.label!r} ({second.path}); a video has one label"
        )
    return None


def without(manifest: Manifest, path: str | int | Path) -> Manifest:
    """The manifest less the videos that a CSV names in its column `path`, as the manifest has them or with the root before.

    Raises:
        InputError: no such file or column, or nothing is left to train on.
    """
    columns, rows = read_table(path, "list of excluded videos (dataset.exclude)")
    if "path" not in columns:
        raise InputError(f"{path} line 1: no column 'path'; dataset.exclude takes the quarantine.csv of a run, or its like")
    place = columns.index("path")
    named = {os.path.normpath(row[place]) for _, row in rows if row[place]}
    root, whole = str(manifest.root), os.path.abspath(manifest.root)

    def is_named(entry: Entry) -> bool:
        spelt = (os.path.normpath(os.path.join(folder, entry.path)) for folder in ("", root, whole))
        return any(name in named for name in spelt)

    kept = tuple(e for e in manifest.entries if not is_named(e))
    counts = Counter(e.split for e in manifest.entries)
    counts.subtract(e.split for e in kept)
    left_out = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS if counts[split]) or "no"
    if not kept:
        raise InputError(f"dataset.exclude={path}: no video is left")
    note = f"excluded by {path}: {left_out} videos of the {len(named):,} that it names"
    # The quarantine of a preparation does, of the data set that it wrote; so does a list of other videos.
    if named and len(kept) == len(manifest) and not any(is_named(e) for e in manifest.missing):
        note += f", such as {min(named)}; paths of the data set are like {manifest.entries[0].path}"
    return replace(manifest, entries=kept, notes=(*manifest.notes, note))


def _missing_note(entries: Sequence[Entry], lost: Sequence[Entry], missing: Missing) -> str:
    all_of, lost_of = (Counter(entry.split for entry in rows) for rows in (entries, lost))
    outcomes = {"train": "left out"} if missing == "wrong" else dict.fromkeys(SPLITS, "left out")
    counts = [f"{lost_of[s]:,} of {all_of[s]:,} {s} ({outcomes.get(s, 'counted as wrong')})" for s in SPLITS if lost_of[s]]
    return f"missing videos: {', '.join(counts)}"


def unknown_label(label: str, classes: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(label, classes, n=1)
    hint = f"; nearest: {nearest[0]!r}" if nearest else ""
    return f"label {label!r} is not one of the {len(classes)} classes{hint}"


def read_classes(path: str | int | Path) -> tuple[str, ...]:
    """Class names, one a line, in the order of the network's outputs.

    Args:
        path: a file, or the name of a list in data/, such as kinetics400.
    """
    ours = _DATA / f"{path}.txt"
    # Not Path.is_file: it raises for a name that is too long for a file.
    return classes_of(read_lines(ours if os.path.isfile(ours) and not os.path.isfile(str(path)) else path, "class list"), path)


def classes_of(lines: Sequence[str], path: str | int | Path) -> tuple[str, ...]:
    """The same of the lines of a file."""
    for number, line in enumerate(lines, start=1):
        if line.strip() and (fault := label_fault(line.strip())):
            raise InputError(f"{path} line {number}: class {line.strip()!r} {fault}")
    names = tuple(line.strip() for line in lines if line.strip())
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{path}: class {name!r} stands {count} times; every class is named once")
    return names


def _sorted_labels(labels: set[str]) -> tuple[str, ...]:
    if all(label.isdecimal() and len(label) <= _MAX_DIGITS for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


class ManifestFile:
    """A data set given by its manifest CSV.

    Args:
        path: the CSV.
        root: folder that its paths are relative to; by default the CSV's folder.
        classes: file with the class names, one a line; by default the labels found, sorted.
        flip: probability that a training clip is mirrored; false is 0, true 0.5.
        missing: see `validated`.
    """

    def __init__(self, path: str, root: str | None, classes: str | None, flip: float | int, missing: Missing = "error") -> None:
        stem = Path(path).stem
        self.name = Path(path).resolve().parent.name if stem == "manifest" else stem  # every prepared folder has a manifest.csv
        self.flip = flip
        self._path = Path(path)
        self._root = Path(root) if root is not None else self._path.parent
        self._classes = classes
        self._missing: Missing = missing

    def manifest(self) -> Manifest:
        classes = read_classes(self._classes) if self._classes is not None else None
        listed = list(entries_of(*read_table(self._path, "manifest"), classes, str(self._path)))
        at = lambda row: f"{self._path} line {listed[row][0]}"  # noqa: E731
        return validated(self._root, [e for _, e, _ in listed], classes, str(self._path), missing=self._missing, at=at)


def entries_of(
    columns: Sequence[str],
    rows: Iterable[tuple[int, list[str]]],
    classes: Sequence[str] | None,
    path: str,
    needed: Sequence[str] = (),
) -> Iterator[tuple[int, Entry, list[str]]]:
    """Of every row of a manifest CSV its line, the entry, and the row itself.

    Args:
        columns, rows: as `read_table` gives them.
        path: of the file, in messages.
        needed: columns that must be there, beside path, label and split.

    Raises:
        InputError: a column is not there; a row has no path, label or split, a label that is no class, or a size that is none.
    """
    absent = [column for column in ("path", "label", "split", *needed) if column not in columns]
    if absent:
        others = f"; dataset=shards needs {', '.join(needed)} as well, dataset=manifest reads the others" if needed else ""
        raise InputError(
            f"{path} line 1: no column {absent[0]!r}; the columns are path, label, video_id, split, group "
            f"(video_id and group may be left out){others}"
        )
    known = None if classes is None else set(classes)
    path_at, label_at, split_at = map(columns.index, ("path", "label", "split"))
    optional = ("video_id", "num_bytes", "group")
    id_at, bytes_at, group_at = (columns.index(column) if column in columns else None for column in optional)
    for line, row in rows:
        name, label, split = row[path_at], row[label_at].strip(), row[split_at].strip()
        if not (name.strip() and label and split):
            column = next(c for c in ("path", "label", "split") if not row[columns.index(c)].strip())
            raise InputError(f"{path} line {line}: no {column}; every row has path, label and split")
        if known is not None and label not in known:
            raise InputError(f"{path} line {line}: {unknown_label(label, classes or ())}")
        size = row[bytes_at] if bytes_at is not None else ""
        if size and not is_whole_number(size):
            raise InputError(f"{path} line {line}: num_bytes is {size!r}; give the size of the file, or nothing")
        video_id = row[id_at] if id_at is not None else ""
        group = row[group_at] if group_at is not None else ""
        yield line, Entry(name, label, video_id or name, split, int(size or 0), group), row


def is_whole_number(text: str) -> bool:
    """Whether it is one that an int64 holds."""
    return text.isdecimal() and len(text) <= _MAX_DIGITS
