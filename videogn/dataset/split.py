"""Divide videos into train, val and test by groups (the recording, the person, the place), stratified by label."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from videogn.dataset.columns import SPLITS
from videogn.dataset.text import read_table
from videogn.number import is_count
from videogn.types import InputError

FRACTIONS = (0.70, 0.15, 0.15)  # of the groups, for train, val, test


def split_groups(
    groups: Sequence[str],
    labels: Sequence[str],
    seed: int,
    splits: Sequence[str] = SPLITS,
    fractions: Sequence[float] = FRACTIONS,
) -> list[str]:
    """The split of every video, so that no group is in two splits and each label is spread by `fractions`.

    Iterative stratification (Sechidis et al. 2011) over groups: a group carries the labels of its videos; the rarest label
    is placed first, each of its groups into the split that still wants most of that label.

    Args:
        groups, labels: one a video.
        seed: `dataset.split_seed`; the same seed and videos give the same split.

    Raises:
        InputError: the seed is no whole number from 0 up.
    """
    if not is_count(seed):
        raise InputError(f"dataset.split_seed={'null' if seed is None else seed}: give a whole number from 0 up")
    labels_of: dict[str, set[str]] = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        labels_of[group].add(label)
    rng = np.random.default_rng(seed)
    order = [sorted(labels_of)[i] for i in rng.permutation(len(labels_of))]
    share = np.asarray(fractions) / sum(fractions)
    groups_with = Counter(label for group in order for label in labels_of[group])
    wanted = {label: share * count for label, count in groups_with.items()}
    wanted_in_all = share * len(order)
    split_of: dict[str, str] = {}
    remaining = Counter(groups_with)
    while remaining:
        rarest = min(remaining, key=lambda label: (remaining[label], label))
        for group in order:
            if group in split_of or rarest not in labels_of[group]:
                continue
            # Rounded, so that 0.15 + 0.15 left over from float arithmetic does not decide a tie.
            wish = list(zip(wanted[rarest].round(9), wanted_in_all.round(9), -np.arange(len(splits)), strict=True))
            best = max(range(len(splits)), key=lambda s: wish[s])
            split_of[group] = splits[best]
            wanted_in_all[best] -= 1
            for label in labels_of[group]:
                wanted[label][best] -= 1
                remaining[label] -= 1
        del remaining[rarest]
        remaining = +remaining
    return [split_of[group] for group in groups]


def read_groups(path: str | Path, group_by: str | None, videos: Sequence[str]) -> Mapping[str, str]:
    """The group of every video, from a CSV with a column `path` and one that names the group.

    Args:
        group_by: the group's column; by default `group`, as in a manifest, or the only one that is not path, label or split.
        videos: paths as they stand in the CSV; each must have a row.

    Raises:
        InputError: the file or a column is not there, a video has no group, or two.
    """
    columns, rows = read_table(path, "groups file")
    if "path" not in columns:
        raise InputError(f"{path} line 1: no column 'path'; columns: {', '.join(columns) or 'none'}")
    candidates = ["group"] if "group" in columns else [c for c in columns if c not in ("path", "label", "split")]
    if group_by is None and len(candidates) != 1:
        raise InputError(
            f"{path} line 1: {len(candidates)} columns could name the group ({', '.join(candidates) or 'none'}); "
            "choose one with dataset.group_by=COLUMN"
        )
    column = group_by if group_by is not None else candidates[0]
    if column not in columns:
        raise InputError(f"{path} line 1: no column {column!r} (dataset.group_by); columns: {', '.join(columns)}")
    group_of: dict[str, str] = {}
    line_of: dict[str, int] = {}
    path_place, group_place = columns.index("path"), columns.index(column)
    for number, row in rows:
        name, group = row[path_place], row[group_place]
        if not name or not group:
            raise InputError(f"{path} line {number}: a row needs a path and a {column}")
        video = Path(name).as_posix()
        line = line_of.setdefault(video, number)
        if group_of.setdefault(video, group) != group:
            raise InputError(
                f"{path} lines {line} and {number}: {video} is of two groups, {group_of[video]!r} and {group!r}; "
                f"a video has one {column}"
            )
    for video in videos:
        if video not in group_of:
            raise InputError(f"{path}: no row for {video}; every video needs its {column}, its path relative to dataset.root")
    return group_of


def check_apart(groups: Sequence[str], splits: Sequence[str], videos: Sequence[str], place: str) -> None:
    """Raises InputError, which starts with `place`, where two videos of a group are in two splits."""
    first_of: dict[str, int] = {}
    for row, group in enumerate(groups):
        first = first_of.setdefault(group, row)
        if splits[first] != splits[row]:
            raise InputError(
                f"{place}: group {group!r} is in two splits, {splits[first]} ({videos[first]}) and {splits[row]} "
                f"({videos[row]}); the score would be of what was seen in training: move its videos into one split"
            )
