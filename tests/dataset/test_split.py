"""split_groups as a property."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from videogn.dataset.split import split_groups

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
