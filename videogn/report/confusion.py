"""What was taken for what: the pairs most often confused, and an order of the classes in which they stand together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64


class Pair(NamedTuple):
    """A class that videos show, the class that they were given, how many, and their share of the former's answered videos."""

    shown: int
    answered: int
    num_videos: int
    share: float


def most_confused(matrix: Int64[np.ndarray, "K K"], limit: int) -> list[Pair]:
    """The pairs with the most videos, at most `limit`; of equal ones that with the larger share, then that named first."""
    rows, columns = np.nonzero(matrix)
    off = rows != columns
    rows, columns = rows[off], columns[off]
    videos = matrix[rows, columns]
    shares = videos / matrix.sum(1)[rows]
    best = np.lexsort((columns, rows, -shares, -videos))[:limit]
    found = zip(rows[best].tolist(), columns[best].tolist(), videos[best].tolist(), shares[best].tolist(), strict=True)
    return [Pair(*pair) for pair in found]


def sparse(matrix: Int64[np.ndarray, "K K"]) -> list[int]:
    """Row, column and count of all that is not 0, one after the other."""
    rows, columns = np.nonzero(matrix)
    return np.stack([rows, columns, matrix[rows, columns]], 1).ravel().tolist()


def confused_together(matrix: Int64[np.ndarray, "K K"]) -> Sequence[int]:
    """An order of the K classes that puts those beside each other which are taken for each other.

    Average linkage on the similarity s[i, j] = r[i, j] + r[j, i], r being the rows scaled to a sum of 1: the two most similar
    groups become one until no two have anything in common, each turned so that their most similar ends meet. So the pair
    that is confused the most is always adjacent. Groups follow by size, a class that nothing is confused with last.

    Source: Sokal & Michener, University of Kansas Science Bulletin 38, 1958; of turned groups, Gruvaeus & Wainer,
    British Journal of Mathematical and Statistical Psychology 25, 1972.
    """
    num_classes = len(matrix)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    similarity = shares + shares.T
    np.fill_diagonal(similarity, 0)
    between = similarity.copy()  # the mean over the classes of two groups
    groups = {index: [index] for index in range(num_classes)}
    while len(groups) > 1:
        first, second = sorted(divmod(int(between.argmax()), num_classes))
        if between[first, second] <= 0:
            break
        a, b = groups[first], groups.pop(second)
        groups[first] = _joined(a, b, similarity)
        merged = (len(a) * between[first] + len(b) * between[second]) / (len(a) + len(b))
        between[first], between[:, first] = merged, merged
        between[second], between[:, second] = 0, 0
        between[first, first] = 0
    return [index for group in sorted(groups.values(), key=lambda group: (-len(group), min(group))) for index in group]


def _joined(a: list[int], b: list[int], similarity: np.ndarray) -> list[int]:
    """Two groups in a row, turned so that the most similar of their ends meet."""
    ways = ((a, b), (a, b[::-1]), (a[::-1], b), (a[::-1], b[::-1]))
    left, right = max(ways, key=lambda way: similarity[way[0][-1], way[1][0]])
    return left + right
