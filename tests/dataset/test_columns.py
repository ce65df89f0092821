"""Columns are a sequence of rows, and small."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogn.dataset.columns import SPLITS, Entries, Entry, Texts

TEXT = st.text(max_size=12) | st.just("\udcff.mp4")  # a name that is no UTF-8, as Python reads it from a disk
ROWS = st.lists(st.builds(Entry, TEXT, st.sampled_from("abc"), TEXT, st.sampled_from(SPLITS), st.integers(0, 2**40)), max_size=8)


@given(ROWS, st.data())
def test_they_are_the_rows_that_were_given(rows: list[Entry], data: st.DataObject) -> None:
    entries = Entries(rows)
    assert list(entries) == rows
    assert [entries[place] for place in range(-len(rows), len(rows))] == rows + rows
    assert entries[1:5:2] == rows[1:5:2]
    assert entries == tuple(rows)
    assert entries != (*rows, Entry("x", "a", "x", "train"))
    assert pickle.loads(pickle.dumps(entries)) == rows
    taken = data.draw(st.lists(st.sampled_from(range(len(rows))), max_size=6)) if rows else []
    assert entries.take(np.array(taken, np.int64)) == [rows[place] for place in taken]


def test_a_row_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        Entries([Entry("a", "a", "a", "train")])[1]


def test_a_set_of_the_size_of_kinetics_is_small() -> None:
    """A pickle is what a spawned worker gets, and a block of bytes what a forked one shares; tuples of it are 100 MB."""
    rows = [
        Entry(f"train/playing musical chairs/{n:011d}_000010_000020.mp4", "playing musical chairs", f"{n:011d}", "train")
        for n in range(240_000)
    ]
    assert len(pickle.dumps(Entries(rows))) < 50e6


def test_strings_of_no_length() -> None:
    texts = Texts(["", "a", ""])
    assert [texts[place] for place in range(3)] == list(texts) == ["", "a", ""]
