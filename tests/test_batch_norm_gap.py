"""The batches of scripts/study/batch_norm_gap.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SPEC = importlib.util.spec_from_file_location("gap", Path(__file__).parents[1] / "scripts/study/batch_norm_gap.py")
assert SPEC is not None
assert SPEC.loader is not None
gap = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(gap)


@pytest.mark.parametrize("size", [2, 4, 8, 15])
def test_batches_of_one_class_are_of_one_class_and_of_the_trainings_size(size: int) -> None:
    """15 videos a class, as in the study: cut without regard to classes, 8 of 18 batches of 8 hold two."""
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 15))
    mixed, one_class = gap.batches(labels, size)
    assert {len(part) for part in (*mixed, *one_class)} == {size}
    assert all(len(set(labels[part])) == 1 for part in one_class)
    assert size == 15 or len(one_class) == 10 * (15 // size)
    assert any(len(set(labels[part])) > 1 for part in mixed)
    # The same videos, each once: the ways differ in nothing else.
    assert sorted(np.concatenate(mixed)) == sorted(np.concatenate(one_class))
    assert len(set(np.concatenate(mixed))) == size * len(mixed)


def test_a_class_of_less_than_a_batch() -> None:
    assert gap.batches(np.repeat([0, 1], [16, 15]), 16) == ([], [])
