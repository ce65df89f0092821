"""What the public data sets share: which videos there are is published; the files are found by name wherever they lie."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from videogn.dataset.columns import SPLITS, Entry
from videogn.dataset.files import files_below, listing
from videogn.dataset.manifest import VIDEO_SUFFIXES, Manifest, Missing, read_classes, unknown_label, validated
from videogn.dataset.split import split_groups
from videogn.dataset.text import read_lines
from videogn.number import is_count
from videogn.types import InputError


class Row(NamedTuple):
    """One video as it is published.

    Attributes:
        name: of its file, without the suffix.
        label: "" where it is held back.
        split: train, val or test.
        group: of the recording; videos of a group stay together where a val split is drawn.
        place: where its file is expected under the root, should it be missing.
    """

    name: str
    label: str
    split: str
    group: str
    place: str


class PublishedSet(ABC):
    """A public data set.

    Args:
        root: folder below which the videos lie, at any depth; what folders they are in does not matter.
        annotations: folder of the files that a subclass names; by default one of `folders` under the root, else the root.
        classes: name of a list in data/, or a file with the class names, one a line.
        flip: probability that a training clip is mirrored; false is 0, true 0.5.
        missing: what a video whose file is not there is, see `validated`.

    Raises:
        InputError: by `manifest`, what is wrong with the annotations, or that none of the videos is there.
    """

    name: ClassVar[str]
    needs: ClassVar[str]  # the annotation files, for messages
    folders: ClassVar[Sequence[str]]  # as they are called where people unpack them

    def __init__(self, root: str, annotations: str | None, classes: str, flip: float | int, missing: Missing) -> None:
        self.flip = flip
        self._root = Path(root)
        usual = [self._root / folder for folder in self.folders if os.path.isdir(self._root / folder)]
        self.annotations = Path(annotations) if annotations is not None else (*usual, self._root)[0]
        self._classes = classes
        self._missing: Missing = missing

    @abstractmethod
    def rows(self, classes: Sequence[str]) -> Iterable[Row]:
        """The published videos."""

    def divided(self, rows: list[Row]) -> tuple[list[Row], list[str]]:
        """The videos with their splits, and what should be known of these."""
        return rows, []

    def manifest(self) -> Manifest:
        for folder, key in ((self._root, "root"), (self.annotations, "annotations")):
            if not os.path.isdir(folder):
                raise InputError(f"dataset.{key}: {folder}: no such folder; correct the path")
        listing(self.annotations)  # what may not be read would look empty
        classes = read_classes(self._classes)
        # Two files may name a video, as a list of all and one of a split do.
        published = list({(row.name, row.label, row.split): row for row in self.rows(classes)}.values())
        unlabelled = Counter(row.split for row in published if not row.label)
        notes = [f"{count:,} {split} videos are published without a label: left out" for split, count in unlabelled.items()]
        rows, drawn = self.divided([row for row in published if row.label])
        found = video_files(self._root)
        # Some copies of Kinetics name a clip by its recording alone: which, where there are two, the name does not tell.
        clips = Counter(group for _, group in {(row.name, row.group) for row in published})
        unclear = {row.group for row in rows if clips[row.group] > 1 and row.name not in found and row.group in found}
        if unclear:
            example = found[min(unclear)][0]
            notes.append(
                f"{len(unclear):,} files are named by a recording of which several clips are published, such as {example}: which "
                "clip it is cannot be told, and all of them count as missing"
            )
        by_group = {group: files for group, files in found.items() if group not in unclear}
        files = [_choose(found.get(row.name) or by_group.get(row.group, ()), row.split) for row in rows]
        entries = [Entry(file or row.place, row.label, row.name, row.split) for file, row in zip(files, rows, strict=True)]
        absent = {place for place, file in enumerate(files) if file is None}
        return validated(self._root, entries, classes, self.place, [*notes, *drawn], self._missing, absent)

    @property
    def place(self) -> str:
        """What messages about the annotations start with."""
        return f"{self.name}: {self.annotations}"

    def annotation_files(self, pattern: str) -> list[Path]:
        """Those of this pattern, in order; an InputError where there is none."""
        files = sorted(path for path in self.annotations.glob(pattern) if path.is_file())
        if not files:
            raise InputError(f"{self.place}: holds no {pattern}; dataset.annotations is the folder of {self.needs}")
        return files


class FoldedSet(PublishedSet):
    """A public data set that was divided into train and test three times, without a val split.

    Args:
        fold: the division, 1, 2 or 3.
        val_fraction: share of the training groups that becomes val; 0 watches the training on the test split, as the field
            often does, and leaves no other test.
        split_seed: which of them.
    """

    def __init__(
        self,
        root: str,
        annotations: str | None,
        classes: str,
        flip: float | int,
        missing: Missing,
        fold: int,
        val_fraction: int | float,
        split_seed: int,
    ) -> None:
        super().__init__(root, annotations, classes, flip, missing)
        if not is_count(fold, 1, 3):
            raise InputError(f"dataset.fold={fold!r}; use 1, 2 or 3, a whole number without quotes")
        if isinstance(val_fraction, bool) or not 0 <= val_fraction < 1:
            raise InputError(
                f"dataset.val_fraction={val_fraction}; give a share of the training videos from 0 up to, not including, 1"
            )
        self.fold = fold
        self._val_fraction = val_fraction
        self._split_seed = split_seed

    def divided(self, rows: list[Row]) -> tuple[list[Row], list[str]]:
        if not self._val_fraction:
            note = "val is the published test: what is chosen by it is chosen by the answers"
            return [row._replace(split="val" if row.split == "test" else row.split) for row in rows], [note]
        train = [row for row in rows if row.split == "train"]
        fractions = (1 - self._val_fraction, self._val_fraction)
        drawn = split_groups([r.group for r in train], [r.label for r in train], self._split_seed, ("train", "val"), fractions)
        if train and "val" not in drawn:
            chosen = self._one_group(train)
            drawn = ["val" if row.group == chosen else "train" for row in train]
        note = (
            f"no val split is published: {drawn.count('val'):,} of the {len(train):,} training videos are val, whole recordings "
            f"(dataset.val_fraction={self._val_fraction}, dataset.split_seed={self._split_seed})"
        )
        rest = [row for row in rows if row.split != "train"]
        return [*(row._replace(split=split) for row, split in zip(train, drawn, strict=True)), *rest], [note]

    def _one_group(self, train: list[Row]) -> str:
        """Where the share is less than a group: one whose classes have others to learn from."""
        groups_with = Counter(label for label, _ in {(row.label, row.group) for row in train})
        spare = sorted({row.group for row in train} - {row.group for row in train if groups_with[row.label] == 1})
        if not spare:
            raise InputError(
                f"{self.place}: no class has a training recording to spare for val; list more, or set "
                "dataset.val_fraction=0, which makes the published test val"
            )
        return spare[int(np.random.default_rng(self._split_seed).integers(len(spare)))]


def video_files(root: Path) -> Mapping[str, Sequence[str]]:
    """File name without suffix -> the videos of that name below `root`, as paths relative to it, in order."""
    found: dict[str, list[str]] = {}
    for folder, names in files_below(root, root.resolve().parents):
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in VIDEO_SUFFIXES:
                found.setdefault(stem, []).append(prefix + name)
    return found


def _choose(paths: Sequence[str], split: str) -> str | None:
    """Of several files the one that replaces a corrupted one, else one of the split's folder, else the first."""

    def rank(path: str) -> tuple[bool, bool]:
        folders = path.lower().split("/")[:-1]
        return not any("replacement" in folder for folder in folders), not any(folder.startswith(split) for folder in folders)

    return min(paths, key=rank, default=None)


def split_of(text: str, place: str) -> str:
    """train, val or test, of a word such as "validate" or a file name such as trainlist01.txt."""
    found = [split for split in SPLITS if split in text.lower()]
    if len(found) != 1:
        raise InputError(f"{place}: {text!r} names no split; it must hold one of train, val, test")
    return found[0]


def table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, words) of every line that is not empty."""
    for number, line in enumerate(read_lines(path, "annotation"), start=1):
        if words := line.split():
            yield number, words


def label_of(word: str, classes: Sequence[str], place: str) -> str:
    """A class by its name, or by its number in the list."""
    if word in classes:
        return word
    if word.isdecimal() and int(word) < len(classes):
        return classes[int(word)]
    raise InputError(f"{place}: {unknown_label(word, classes)}")
