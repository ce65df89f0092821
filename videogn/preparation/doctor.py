"""Look over the videos of a data set: what would spoil a score, and what one should know before training.

Pure functions of the rows that `prepare` gives. A finding is something that makes a score say less than it seems to: the same
recording in training and in testing, a class that is never seen or never asked for, test videos that count as wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from rich.table import Table

from videogn.dataset.columns import SPLITS
from videogn.preparation.prepare import Row
from videogn.preparation.verify import PARTIAL

_NAMED = 3  # examples in a message; the report lists all
_CLASSES_SHOWN = 20
_NONE: dict[str, int] = dict.fromkeys(SPLITS, 0)  # videos of each split


def examine(
    rows: Sequence[Row],
    classes: Sequence[str],
    *,
    unlisted: Sequence[str] = (),
    clip_frames: int = 16,
    max_bad_fraction: float = 0.05,
) -> dict[str, Any]:
    """The report on a data set, as plain data.

    Args:
        rows: of all videos, usable or not.
        classes: the class list.
        unlisted: files of earlier runs in the folder that no list has.
        clip_frames: frames from the first to the last of a training clip; shorter videos loop.
        max_bad_fraction: share of the training videos that may be unusable.

    Returns:
        Counts (`num_videos, num_usable, num_partial, num_unusable, splits, classes, imbalance, unused_classes,
        duration_seconds, fps, sizes, codecs, short_videos, duplicates, unlisted`), `findings`, each with `kind`,
        `message` and `videos`, and `notes`, messages on what spoils nothing.
    """
    usable = [row for row in rows if row.is_usable]
    table: dict[str, dict[str, int]] = {name: {**_NONE} for name in classes}
    for row in usable:
        table[row.entry.label][row.entry.split] += 1
    copies = [same for same in _groups_of(usable, _content) if len({row.entry._replace(video_id="") for row in same}) > 1]
    short = [row for row in usable if row.facts is not None and row.facts.num_frames < clip_frames]
    labels = {row.entry.label for row in rows}
    trained = {name: counts["train"] for name, counts in table.items() if counts["train"]}
    report: dict[str, Any] = {
        "num_videos": len(rows),
        "num_usable": len(usable),
        "num_partial": sum(1 for row in usable if row.source is not None and row.source.status == PARTIAL),
        "num_unusable": len(rows) - len(usable),
        "splits": {split: _split(rows, split) for split in SPLITS},
        "classes": table,
        "imbalance": _imbalance(trained),
        "unused_classes": [name for name in classes if name not in labels],
        "duration_seconds": _spread([row.facts.duration_seconds for row in usable if row.facts]),
        "fps": _spread([row.facts.fps for row in usable if row.facts]),
        "sizes": _counts(f"{row.facts.width}x{row.facts.height}" for row in usable if row.facts),
        "codecs": _counts(row.source.codec for row in usable if row.source),
        "short_videos": {"clip_frames": clip_frames, "videos": _paths(short)},
        "duplicates": [_paths(same) for same in copies],
        "unlisted": list(unlisted),
    }
    report["findings"] = [
        *_copies_findings(copies),
        *_leaks(rows),
        *_absent_classes(table, report["splits"]),
        *_unusable_findings(rows, max_bad_fraction),
    ]
    report["notes"] = _notes(report, copies)
    return report


def tables(report: Mapping[str, Any]) -> list[Table | str]:
    """The report to print: the splits, the classes, and lines of text."""
    splits = Table()
    for column in ("split", "videos", "unusable", "hours", "classes"):
        splits.add_column(column, justify="left" if column == "split" else "right")
    for split, facts in report["splits"].items():
        present = sum(1 for counts in report["classes"].values() if counts[split])
        splits.add_row(split, f"{facts['videos']:,}", f"{facts['unusable']:,}", f"{facts['hours']:.2f}", f"{present:,}")
    classes = Table()
    classes.add_column("class")
    for split in SPLITS:
        classes.add_column(split, justify="right")
    with_videos = [(name, counts) for name, counts in report["classes"].items() if any(counts.values())]
    ordered = sorted(with_videos, key=lambda item: -sum(item[1].values()))
    shown = ordered if len(ordered) <= _CLASSES_SHOWN else ordered[: _CLASSES_SHOWN // 2] + ordered[-_CLASSES_SHOWN // 2 :]
    for place, (name, counts) in enumerate(shown):
        if len(shown) < len(ordered) and place == _CLASSES_SHOWN // 2:
            classes.add_row("...", *["..."] * len(SPLITS))
        classes.add_row(printable(name).replace("[", r"\["), *(f"{counts[split]:,}" for split in SPLITS))
    lines = []
    if report["duration_seconds"]:
        seconds, fps = report["duration_seconds"], report["fps"]
        lines.append(f"seconds: {seconds['min']:.1f} to {seconds['max']:.1f}, median {seconds['median']:.1f}")
        lines.append(f"frames per second: {fps['min']:.2f} to {fps['max']:.2f}, median {fps['median']:.2f}")
        lines.append(f"sizes: {_listed(report['sizes'])}")
        lines.append(f"codecs: {_listed(report['codecs'])}")
    lines += [f"note: {note}" for note in report["notes"]]
    lines += [f"finding: {finding['message']}" for finding in report["findings"]]
    return [splits, classes, *lines]


def printable(text: str) -> str:
    """Bytes of names that are no text, and control characters, written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _finding(kind: str, message: str, videos: Iterable[str] = ()) -> dict[str, Any]:
    return {"kind": kind, "message": message, "videos": list(videos)}


def _copies_findings(copies: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    found = []
    across = [same for same in copies if len({row.entry.split for row in same}) > 1]
    if across:
        example = " = ".join(f"{row.entry.path} ({row.entry.split})" for row in across[0][:_NAMED])
        found.append(
            _finding(
                "duplicates_across_splits",
                f"{_count(len(across), 'file content')} in several splits, so that test videos were seen in training: {example}",
                [path for same in across for path in _paths(same)],
            )
        )
    contradicting = [same for same in copies if len({row.entry.label for row in same}) > 1]
    if contradicting:
        example = " = ".join(f"{row.entry.path} ({row.entry.label})" for row in contradicting[0][:_NAMED])
        found.append(
            _finding(
                "duplicates_with_other_labels",
                f"{_count(len(contradicting), 'file content')} under several labels, of which one is wrong: {example}",
                [path for same in contradicting for path in _paths(same)],
            )
        )
    return found


def _leaks(rows: Sequence[Row]) -> list[dict[str, Any]]:
    recordings = _groups_of(rows, lambda row: row.entry.video_id)
    across = [same for same in recordings if len({row.entry.split for row in same}) > 1]
    if not across:
        return []
    first = across[0]
    splits = ", ".join(split for split in SPLITS if any(row.entry.split == split for row in first))
    message = (
        f"{_count(len(across), 'video_id')} in several splits: the score would be of what was seen in training: "
        f"{first[0].entry.video_id!r} ({splits}), such as {first[0].entry.path}"
    )
    return [_finding("video_id_across_splits", message, [path for same in across for path in _paths(same)])]


def _absent_classes(table: Mapping[str, Mapping[str, int]], splits: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Classes with videos in some splits and none in another; a split that is empty as a whole is told once."""
    found = []
    consequences = {"train": "never learned", "val": "no choice looks there", "test": "never scored"}
    for split in SPLITS:
        if not any(counts[split] for counts in table.values()):
            if split != "test" or splits[split]["videos"]:  # without a test split val is tested on
                found.append(_finding("empty_split", f"no usable video in split {split}"))
            continue
        absent = [name for name, counts in table.items() if sum(counts.values()) and not counts[split]]
        if absent:
            message = (
                f"{_count(len(absent), 'class')} without a usable video in split {split} ({consequences[split]}): {_few(absent)}"
            )
            found.append(_finding(f"class_missing_from_{split}", message))
    return found


def _unusable_findings(rows: Sequence[Row], max_bad_fraction: float) -> list[dict[str, Any]]:
    found = []
    train = [row for row in rows if row.entry.split == "train"]
    bad = [row for row in train if not row.is_usable]
    if bad and len(bad) / len(train) > max_bad_fraction:
        message = (
            f"{len(bad):,} of {len(train):,} training videos cannot be used ({len(bad) / len(train):.1%}), and "
            f"dataset.max_bad_fraction={max_bad_fraction} allows no more"
        )
        found.append(_finding("unusable_train", message, _paths(bad)))
    for split in ("val", "test"):
        bad = [row for row in rows if row.entry.split == split and not row.is_usable]
        if bad:
            message = f"{_count(len(bad), 'video')} of split {split} cannot be used and will count as wrong: {_few(_paths(bad))}"
            found.append(_finding(f"unusable_{split}", message, _paths(bad)))
    return found


def _notes(report: Mapping[str, Any], copies: Sequence[Sequence[Row]]) -> list[str]:
    notes = []
    if report["num_unusable"]:
        share = report["num_unusable"] / report["num_videos"]
        notes.append(f"{_count(report['num_unusable'], 'video')} cannot be used ({share:.1%}): quarantine.csv says why")
    if report["num_partial"]:
        notes.append(f"{_count(report['num_partial'], 'video')} partial: frames are missing, those that decode are used")
    if report["unused_classes"]:
        unused = report["unused_classes"]
        notes.append(f"{len(unused):,} of {len(report['classes']):,} classes of the list have no video: {_few(unused)}")
    inside = [same for same in copies if len({(row.entry.split, row.entry.label) for row in same}) == 1]
    if inside:
        extra = sum(len(same) - 1 for same in inside)
        notes.append(f"{_count(extra, 'video')} the same as another of its split and class, such as {inside[0][1].entry.path}")
    short = report["short_videos"]
    if short["videos"]:
        notes.append(
            f"{_count(len(short['videos']), 'video')} shorter than a clip of {short['clip_frames']} frames, which loops: "
            f"{_few(short['videos'])}"
        )
    if unlisted := report["unlisted"]:
        notes.append(
            f"{_count(len(unlisted), 'file')} of earlier runs in this folder, which no list has any more: {_few(unlisted)}; "
            "doctor.json names them, delete what is not needed"
        )
    imbalance = report["imbalance"]
    if imbalance and imbalance["ratio"] >= 2:
        (most, many), (fewest, few) = imbalance["most"], imbalance["fewest"]
        notes.append(
            f"training classes are unequal: {many:,} videos of {most}, {few:,} of {fewest}; class_balanced=true evens them"
        )
    return notes


def _content(row: Row) -> str | None:
    return None if row.source is None else row.source.sha256


def _groups_of(rows: Sequence[Row], key: Any) -> list[list[Row]]:
    """Rows of one key; those whose key is None belong to none."""
    found: defaultdict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        if (value := key(row)) is not None:
            found[value].append(row)
    return [same for same in found.values() if len(same) > 1]


def _split(rows: Sequence[Row], split: str) -> dict[str, Any]:
    of_split = [row for row in rows if row.entry.split == split]
    usable = [row.facts for row in of_split if row.facts is not None]
    hours = sum(facts.duration_seconds for facts in usable) / 3600
    return {"videos": len(of_split), "unusable": len(of_split) - len(usable), "hours": round(hours, 4)}


def _imbalance(counts: Mapping[str, int]) -> dict[str, Any] | None:
    """Of the classes that have training videos: the largest, the smallest, and how many times larger it is."""
    if not counts:
        return None
    most, fewest = (choose(counts.items(), key=lambda item: item[1]) for choose in (max, min))
    return {"most": list(most), "fewest": list(fewest), "ratio": round(most[1] / fewest[1], 3)}


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"min": min(values), "median": round(median(values), 6), "max": max(values), "total": round(sum(values), 3)}


def _counts(values: Iterable[str]) -> dict[str, int]:
    """The most frequent first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _paths(rows: Iterable[Row]) -> list[str]:
    return [row.entry.path for row in rows]


def _count(count: int, what: str) -> str:
    """'1 video', '2 videos'."""
    return f"{count:,} {what}" + ("" if count == 1 else "es" if what.endswith("s") else "s")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f", and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")


def _listed(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name} ({count:,})" for name, count in list(counts.items())[:_NAMED])
    rest = sum(list(counts.values())[_NAMED:])
    return f"{shown}, and {rest:,} others" if rest else shown
