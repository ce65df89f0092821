"""The rows of a manifest in a few blocks of memory.

A tuple of 240,000 rows is a million Python objects, 100 MB, and a loader's worker copies every page of them that it looks at,
since looking writes a reference count. In columns they are 20 MB that no look writes to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

SPLITS = ("train", "val", "test")


class Entry(NamedTuple):
    """One video.

    Attributes:
        path: relative to the manifest's root, with forward slashes.
        label: name of its class.
        video_id: of the recording.
        split: train, val or test.
        num_bytes: size of the file when it was verified by a full decode; 0 where it was not.
        group: what it has in common with others, such as the recording, the person, the place; "" where that is not known.
    """

    path: str
    label: str
    video_id: str
    split: str
    num_bytes: int = 0
    group: str = ""


class Texts:
    """Strings in one block."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._join([text.encode("utf-8", "surrogateescape") for text in texts])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> str:
        return self._block[self._ends[row] : self._ends[row + 1]].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (part.decode("utf-8", "surrogateescape") for part in self._parts())

    def take(self, rows: Int64[np.ndarray, " V"]) -> Texts:
        """Those of these rows, in their order."""
        parts = list(self._parts())
        taken = copy(self)
        taken._join([parts[row] for row in rows.tolist()])
        return taken

    def _join(self, parts: Sequence[bytes]) -> None:
        self._block = b"".join(parts)
        self._ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)

    def _parts(self) -> Iterator[bytes]:
        ends = self._ends.tolist()
        return (self._block[start:end] for start, end in pairwise(ends))


class Entries(Sequence[Entry]):
    """Rows of a manifest; an Entry is made when it is asked for.

    Attributes:
        label_names: the labels, in the order in which they come.
        label_numbers: of every row, its label's place among them.
        split_numbers: of every row, its split's place among SPLITS.
        num_bytes: see Entry.

    Raises:
        ValueError: a split that is none of SPLITS.
    """

    label_numbers: Int64[np.ndarray, " V"]
    split_numbers: Int64[np.ndarray, " V"]
    num_bytes: Int64[np.ndarray, " V"]

    def __init__(self, entries: Iterable[Entry]) -> None:
        columns = list(zip(*entries, strict=True)) or [()] * len(Entry._fields)
        paths, labels, video_ids, splits, num_bytes, groups = columns
        self._paths = Texts(paths)
        self._video_ids = None if video_ids == paths else Texts(video_ids)
        self._groups = Texts(groups) if any(groups) else None
        self.label_names = tuple(dict.fromkeys(labels))
        number = {label: place for place, label in enumerate(self.label_names)}
        self.label_numbers = np.array([number[label] for label in labels], np.int64)
        self.split_numbers = np.array([SPLITS.index(split) for split in splits], np.int64)
        self.num_bytes = np.array(num_bytes, np.int64)

    def __len__(self) -> int:
        return len(self.num_bytes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return list(self)[index]
        row = range(len(self))[index]
        path = self._paths[row]
        label, split = self.label_names[self.label_numbers[row]], SPLITS[self.split_numbers[row]]
        video_id = path if self._video_ids is None else self._video_ids[row]
        group = "" if self._groups is None else self._groups[row]
        return Entry(path, label, video_id, split, int(self.num_bytes[row]), group)

    def __iter__(self) -> Iterator[Entry]:
        paths = list(self._paths)
        labels = [self.label_names[number] for number in self.label_numbers.tolist()]
        splits = [SPLITS[number] for number in self.split_numbers.tolist()]
        return map(Entry, paths, labels, self._video_ids or paths, splits, self.num_bytes.tolist(), self.groups())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def groups(self) -> list[str]:
        """Of every row."""
        return [""] * len(self) if self._groups is None else list(self._groups)

    def take(self, rows: Int64[np.ndarray, " V"]) -> Entries:
        """Those of these rows, in their order."""
        taken = copy(self)
        taken._paths = self._paths.take(rows)
        taken._video_ids = None if self._video_ids is None else self._video_ids.take(rows)
        taken._groups = None if self._groups is None else self._groups.take(rows)
        for name in ("label_numbers", "split_numbers", "num_bytes"):
            setattr(taken, name, getattr(self, name)[rows])
        return taken
