"""Kinetics-400, 600 and 700."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from videogn.dataset.published import PublishedSet, Row, label_of, split_of
from videogn.dataset.text import read_lines, read_table
from videogn.types import InputError

_COLUMNS = ("youtube_id", "time_start", "time_end")
_TOO_LATE = 10**6  # seconds; names have six digits


class Kinetics(PublishedSet):
    """Clips named <youtube id>_<start>_<end>, in seconds of six digits, in any folders: class folders with spaces or underscores,
    the train/, val/ and replacement/ of the CVDF copy (a replacement goes before the file of the same name that it mends).

    The annotations are the official CSVs (label, youtube_id, time_start, time_end, split, and others) or mmaction2's lists
    (`folder/name.mp4 number` a line, the split in the list's name). See PublishedSet for the arguments.

    Source: Kay et al., The Kinetics Human Action Video Dataset, arXiv:1705.06950;
    github.com/cvdfoundation/kinetics-dataset.
    """

    name = "kinetics"
    needs = "train.csv, val.csv and test.csv, or of mmaction2's lists"
    folders = ("annotations",)

    def rows(self, classes: Sequence[str]) -> Iterator[Row]:
        known = 0
        for path in sorted(self.annotations.iterdir()):
            if path.suffix == ".txt" and "list" in path.stem:
                known += 1
                yield from _listed(path, classes)
            elif path.suffix == ".csv":
                columns, rows = read_table(path, "annotation")
                if set(_COLUMNS) <= set(columns):
                    known += 1
                    yield from _annotated(path, columns, rows, classes)
        if not known:
            raise InputError(
                f"{self.place}: no CSV with the columns {', '.join(_COLUMNS)}, and no list of mmaction2; dataset.annotations is "
                f"the folder of {self.needs}"
            )


def _annotated(
    path: Path, columns: Sequence[str], rows: Iterable[tuple[int, list[str]]], classes: Sequence[str]
) -> Iterator[Row]:
    known = set(classes)
    for line, values in rows:
        row, place = dict(zip(columns, values, strict=True)), f"{path} line {line}"
        times = row["time_start"], row["time_end"]
        try:
            start, end = (int(float(time)) for time in times)
            if not (0 <= start < _TOO_LATE and 0 <= end < _TOO_LATE):
                raise ValueError
        except (OverflowError, ValueError):
            raise InputError(f"{place}: time_start and time_end are {times[0]!r} and {times[1]!r}; give seconds") from None
        if not row["youtube_id"].strip():
            raise InputError(f"{place}: no youtube_id; every row has one")
        label = row.get("label", "").strip()
        if label and label not in known:
            label = label_of(label, classes, place)
        split = split_of(row.get("split") or path.stem, place)
        recording = row["youtube_id"].strip()
        name = f"{recording}_{start:06d}_{end:06d}"
        yield Row(name, label, split, recording, f"{split}/{label}/{name}.mp4")


def _listed(path: Path, classes: Sequence[str]) -> Iterator[Row]:
    split = split_of(path.stem, str(path))
    for number, line in enumerate(read_lines(path, "list"), start=1):
        if not line.strip():
            continue
        file, _, word = line.strip().rpartition(" ")
        if not file:
            raise InputError(f"{path} line {number}: {line.strip()!r}; a line is `folder/name.mp4 number`")
        name = Path(file).stem
        yield Row(name, label_of(word, classes, f"{path} line {number}"), split, name[:11], file)
