"""What one result has over another, on the same videos under the same protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from videogn.evaluation.metrics import true_rank
from videogn.evaluation.result import Result
from videogn.types import InputError


@dataclass(frozen=True)
class Change:
    """A video that one result has right and the other wrong; an answer is None where the video was dead."""

    path: str
    label: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class Comparison:
    """The second result against the first, under one protocol.

    Attributes:
        protocol: its name in the first result.
        protocol_hash: of both.
        num_videos: that both scored.
        top1: of the first and of the second.
        difference: second minus first, a fraction of 1.
        interval_95: of the difference, by a bootstrap that draws videos, each with both of its answers.
        p_value: McNemar's.
        lost, gained: videos that the first has right alone, and the second alone.
    """

    protocol: str
    protocol_hash: str
    num_videos: int
    top1: tuple[float, float]
    difference: float
    interval_95: tuple[float, float]
    p_value: float
    lost: Sequence[Change]
    gained: Sequence[Change]

    def as_dict(self) -> dict[str, Any]:
        changes = {name: [vars(change) for change in getattr(self, name)] for name in ("lost", "gained")}
        return {**vars(self), **changes}


def compare(first: Result, second: Result) -> list[Comparison]:
    """One comparison for every protocol of the first result that the second has too, known by its hash.

    Raises:
        InputError: other classes, another split, other videos, or no protocol in common; it names the field that differs.
    """
    order = _same_videos(first, second)
    pairs = [(a, b) for a in first.facts["results"] for b in second.facts["results"] if a["protocol_hash"] == b["protocol_hash"]]
    if not pairs:
        ways = [(a, b) for a in first.facts["results"] for b in second.facts["results"] if a["name"] == b["name"]]
        raise InputError(_other_protocol(*(ways or [(first.facts["results"][0], second.facts["results"][0])])[0]))
    return [_compared(first, second, order, a, b) for a, b in pairs]


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p value of McNemar's test: how likely a split of `lost` + `gained` changed videos at least as uneven
    is, if each was as likely to be lost as to be gained.

    p = min(1, 2 sum_{i <= min(lost, gained)} C(n, i) / 2^n), n = lost + gained.

    Source: McNemar, Psychometrika 12, 1947; its exact form, Edwards, Psychometrika 13, 1948.
    """
    changed = lost + gained
    ways, of_count = 0, 1
    for count in range(min(lost, gained) + 1):
        ways += of_count
        of_count = of_count * (changed - count) // (count + 1)  # C(n, count + 1), without starting anew
    # Integers to the last step: 2**n overflows a float from 1024 changed videos on, their ratio does not.
    return min(1.0, 2 * ways / 2**changed)


def paired_interval(
    first: Bool[np.ndarray, " V"], second: Bool[np.ndarray, " V"], num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of mean(second) - mean(first), videos drawn with both of their answers.

    Only how many of the drawn videos were lost, gained or neither matters, so those three counts are drawn.
    """
    lost, gained = int((first & ~second).sum()), int((second & ~first).sum())
    total = len(first)
    shares = np.array([lost, gained, total - lost - gained]) / total
    counts = np.random.default_rng(seed).multinomial(total, shares, num_resamples)
    low, high = np.percentile((counts[:, 1] - counts[:, 0]) / total, [2.5, 97.5])
    return float(low), float(high)


def _same_videos(first: Result, second: Result) -> list[int]:
    """For every video of the first its row in the second.

    Videos are the same where path (below the root) and label are; the name of a data set is that of a folder, which may
    have moved.
    """
    for name, a, b in (
        ("split", first.facts["split"], second.facts["split"]),
        ("number of classes", len(first.classes), len(second.classes)),
        ("number of videos", len(first.paths), len(second.paths)),
    ):
        if a != b:
            raise InputError(f"compare: {name}: {a} in the first result and {b} in the second; test both on the same data")
    for a, b in zip(first.classes, second.classes, strict=True):
        if a != b:
            raise InputError(f"compare: classes: {a!r} in the first result stands where {b!r} does; test both on the same data")
    rows = {path: row for row, path in enumerate(second.paths)}
    for path, label in zip(first.paths, first.labels.tolist(), strict=True):
        if path not in rows:
            raise InputError(f"compare: videos: {path} is only in the first result; test both on the same data")
        if second.labels[rows[path]] != label:
            other = second.classes[second.labels[rows[path]]]
            raise InputError(
                f"compare: labels: {path} is {first.classes[label]!r} in the first result and {other!r} in the second; "
                "test both on the same data"
            )
    return [rows[path] for path in first.paths]


def _other_protocol(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    a, b = first["protocol"], second["protocol"]
    differing = [f"{name} {a.get(name)} and {b.get(name)}" for name in {**a, **b} if a.get(name) != b.get(name)]
    return (
        f"compare: protocol: {first['name']} of the first result and {second['name']} of the second differ in "
        f"{', '.join(differing)}; test both by one, with videogn evaluate"
    )


def _compared(first: Result, second: Result, order: Sequence[int], a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison:
    scores = first.scores[a["name"]], second.scores[b["name"]]
    right = true_rank(scores[0], first.labels) < 1, (true_rank(scores[1], second.labels) < 1)[order]
    of_second = _answers(second, b["name"])
    answers = _answers(first, a["name"]), [of_second[row] for row in order]
    changes = [
        Change(path, first.classes[label], one, other)
        for path, label, one, other in zip(first.paths, first.labels.tolist(), *answers, strict=True)
    ]
    lost = [change for change, was, now in zip(changes, *right, strict=True) if was and not now]
    gained = [change for change, was, now in zip(changes, *right, strict=True) if now and not was]
    top1 = float(right[0].mean()), float(right[1].mean())
    return Comparison(
        a["name"],
        a["protocol_hash"],
        len(first.paths),
        top1,
        top1[1] - top1[0],
        paired_interval(*right),
        mcnemar(len(lost), len(gained)),
        lost,
        gained,
    )


def _answers(result: Result, name: str) -> list[str | None]:
    scores = result.scores[name]
    best = np.nan_to_num(scores.videos(), nan=-1.0).argmax(1)
    return [result.classes[answer] if alive else None for answer, alive in zip(best.tolist(), scores.alive(), strict=True)]
