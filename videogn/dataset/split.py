"""Divide videos into train, val and test by groups (the recording, the person, the place), stratified by label."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from videogn.dataset.manifest import SPLITS, read_lines
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
        seed: the same seed and videos give the same split.
    """
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
        group_by: the group's column; by default the only one that is not path, label or split.
        videos: paths as they stand in the CSV; each must have a row.
    """
    reader = csv.DictReader(read_lines(path, "groups file"))
    columns = list(reader.fieldnames or ())
    if "path" not in columns:
        raise InputError(f"{path} line 1: no column 'path'; columns: {', '.join(columns) or 'none'}")
    candidates = [c for c in columns if c not in ("path", "label", "split")]
    if group_by is None and len(candidates) != 1:
        raise InputError(
            f"{path} line 1: {len(candidates)} columns could name the group ({', '.join(candidates) or 'none'}); "
            "choose one with dataset.group_by=COLUMN"
        )
    column = group_by if group_by is not None else candidates[0]
    if column not in columns:
        raise InputError(f"{path} line 1: no column {column!r} (dataset.group_by); columns: {', '.join(columns)}")
    group_of: dict[str, str] = {}
    for row in reader:
        if not row["path"] or not row[column]:
            raise InputError(f"{path} line {reader.line_num}: a row needs a path and a {column}")
        group_of[Path(row["path"]).as_posix()] = row[column]
    for video in videos:
        if video not in group_of:
            raise InputError(f"{path}: no row for {video}; every video needs its {column}, its path relative to dataset.root")
    return group_of
