"""The order of the classes against planted groups, the pairs against a count by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest

from videogn.report.confusion import confused_together, most_confused, sparse


def test_pairs_are_counted_and_ordered() -> None:
    matrix = np.array([[5, 2, 0], [2, 1, 3], [0, 0, 9]])
    pairs = most_confused(matrix, 10)
    # Of the two pairs of 2 videos, 2 of 6 is less than 2 of 7's other way round: the larger share comes first.
    assert [(p.shown, p.answered, p.num_videos) for p in pairs] == [(1, 2, 3), (1, 0, 2), (0, 1, 2)]
    assert [p.share for p in pairs] == pytest.approx([3 / 6, 2 / 6, 2 / 7])
    assert len(most_confused(matrix, 2)) == 2
    assert most_confused(np.eye(4, dtype=np.int64), 5) == []


def test_sparse_holds_all_of_the_matrix(rng: np.random.Generator) -> None:
    matrix = rng.poisson(0.2, (30, 30))
    again = np.zeros_like(matrix)
    for row, column, number in np.array(sparse(matrix)).reshape(-1, 3):
        again[row, column] += number
    assert (again == matrix).all()
    assert len(sparse(matrix)) == 3 * np.count_nonzero(matrix)


def test_planted_groups_stand_together(rng: np.random.Generator) -> None:
    """60 classes in shuffled groups of five that are taken for each other, and now and then for others."""
    group = rng.permutation(np.repeat(np.arange(12), 5))
    within = group[:, None] == group[None]
    matrix = rng.poisson(np.where(within, 4.0, 0.02)) + np.diag(np.full(60, 10))
    order = confused_together(matrix)
    assert sorted(order) == list(range(60))
    changes = np.count_nonzero(np.diff(group[list(order)]))
    assert changes == 11  # twelve groups, each in one piece


@pytest.mark.parametrize("seed", range(5))
def test_the_most_confused_pair_is_adjacent(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.poisson(0.3, (50, 50)) + np.diag(rng.integers(5, 20, 50))
    shares = matrix / matrix.sum(1, keepdims=True)
    similarity = shares + shares.T
    np.fill_diagonal(similarity, 0)
    order = list(confused_together(matrix))
    first, second = np.unravel_index(similarity.argmax(), similarity.shape)
    assert abs(order.index(first) - order.index(second)) == 1


def test_a_chain_is_laid_out_as_one(rng: np.random.Generator) -> None:
    """Each class is taken for the next one alone: groups must be turned so that their ends meet."""
    chain = rng.permutation(8)
    matrix = np.diag(np.full(8, 40))
    matrix[chain[:-1], chain[1:]] = [9, 5, 8, 3, 7, 4, 6]
    order = list(confused_together(matrix))
    assert chain.tolist() in (order, order[::-1])


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_joined_by_their_average(seed: int) -> None:
    """Against the definition: at every step the means between all groups, anew from their classes."""
    matrix = np.random.default_rng(seed).integers(0, 1000, (12, 12))
    shares = matrix / matrix.sum(1, keepdims=True)
    similarity = shares + shares.T
    groups = [[index] for index in range(12)]
    while len(groups) > 1:
        pairs = [(a, b) for a in groups for b in groups if a[0] != b[0] and min(a) < min(b)]
        a, b = max(pairs, key=lambda pair: similarity[np.ix_(*pair)].mean())
        ways = [(x, y) for x in (a, a[::-1]) for y in (b, b[::-1])]
        left, right = max(ways, key=lambda way: similarity[way[0][-1], way[1][0]])
        groups = [group for group in groups if group not in (a, b)] + [left + right]
    assert list(confused_together(matrix)) == groups[0]


@pytest.mark.parametrize("num_classes", [1, 2, 7])
def test_without_confusions_the_order_stays(num_classes: int) -> None:
    assert list(confused_together(np.eye(num_classes, dtype=np.int64) * 3)) == list(range(num_classes))
    assert list(confused_together(np.zeros((num_classes, num_classes), np.int64))) == list(range(num_classes))


def test_400_classes_take_less_than_a_second(rng: np.random.Generator) -> None:
    matrix = rng.poisson(0.05, (400, 400)) + np.diag(rng.integers(5, 40, 400))
    start = time.process_time()
    order = confused_together(matrix)
    assert time.process_time() - start < 1
    assert sorted(order) == list(range(400))
