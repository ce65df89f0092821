"""split_groups as a property."""

from __future__ import annotations

import inspect
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogn.dataset.split import check_apart, read_groups, split_groups
from videogn.types import InputError

videos = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4)), min_size=1, max_size=120)


@settings(max_examples=200, deadline=None)
@given(videos, st.integers(0, 1000))
def test_no_group_is_in_two_splits_and_every_label_is_trained(pairs: list[tuple[int, int]], seed: int) -> None:
    groups, labels = [str(g) for g, _ in pairs], [str(label) for _, label in pairs]
    splits = split_groups(groups, labels, seed)
    of_group: dict[str, set[str]] = defaultdict(set)
    of_label: dict[str, set[str]] = defaultdict(set)
    for group, label, split in zip(groups, labels, splits, strict=True):
        of_group[group].add(split)
        of_label[label].add(split)
    assert all(len(found) == 1 for found in of_group.values())
    assert splits == split_groups(groups, labels, seed)
    assert any(split == "train" for split in splits)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(3, 60), min_size=2, max_size=6), st.integers(0, 1000))
def test_each_label_is_divided_70_15_15(counts: list[int], seed: int) -> None:
    labels = [str(i) for i, count in enumerate(counts) for _ in range(count)]
    splits = split_groups([str(i) for i in range(len(labels))], labels, seed)
    for index, count in enumerate(counts):
        mine = [split for label, split in zip(labels, splits, strict=True) if label == str(index)]
        # A file is its own group here, so each split gets its share of each label, to within one file.
        for split, share in (("train", 0.70), ("val", 0.15), ("test", 0.15)):
            assert abs(mine.count(split) - share * count) <= 1


@pytest.mark.parametrize("seed", [None, -1, 1.5, "abc", True])
def test_a_seed_is_a_whole_number(seed: object) -> None:
    """Without one every call would draw another split, and a later test would be of training videos."""
    shown = "null" if seed is None else str(seed)
    with pytest.raises(InputError, match=rf"dataset\.split_seed={shown}: give a whole number from 0 up"):
        inspect.unwrap(split_groups)(["a", "b"], ["x", "y"], seed)


@settings(max_examples=100, deadline=None)
@given(videos, st.integers(0, 1000))
def test_what_is_drawn_is_apart_and_one_video_elsewhere_is_not(pairs: list[tuple[int, int]], seed: int) -> None:
    groups, labels = [str(g) for g, _ in pairs], [str(label) for _, label in pairs]
    splits, paths = split_groups(groups, labels, seed), [f"{row}.mp4" for row in range(len(pairs))]
    check_apart(groups, splits, paths, "groups.csv")
    other = "val" if splits[0] == "train" else "train"
    with pytest.raises(
        InputError, match=rf"groups\.csv: group '{groups[0]}' is in two splits, {splits[0]} \(0\.mp4\) and {other}"
    ):
        check_apart([*groups, groups[0]], [*splits, other], [*paths, "more.mp4"], "groups.csv")


def test_a_video_has_one_group(tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    file.write_text("path,person\na.mp4,Ann\nb.mp4,Bob\na.mp4,Ann\n")
    assert read_groups(file, None, ["a.mp4", "b.mp4"]) == {"a.mp4": "Ann", "b.mp4": "Bob"}
    file.write_text("path,person\na.mp4,Ann\nb.mp4,Bob\n./a.mp4,Bob\n")
    with pytest.raises(InputError, match=r"groups\.csv lines 2 and 4: a\.mp4 is of two groups, 'Ann' and 'Bob'; .*one person"):
        read_groups(file, None, ["a.mp4", "b.mp4"])
