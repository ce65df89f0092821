"""Comparisons of two results, against exact fractions and a bootstrap written out."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
import pytest

from videogn.evaluation.compare import compare, mcnemar, paired_interval
from videogn.evaluation.multi_view import Scores
from videogn.evaluation.result import Result
from videogn.types import InputError

CLASSES = ["run", "jump", "sit"]
FACTS = {"clip_length": 8, "frame_stride": 2, "num_clips": 10, "aggregation": "softmax_mean"}


def result(answers: list[int | None], labels: list[int] | None = None, **changed: Any) -> Result:
    """A result of one protocol, `ten_clip`, in which video i was given `answers[i]`; None: it was dead."""
    views = np.full((len(answers), 2, 3), np.nan, np.float32)
    for row, answer in enumerate(answers):
        if answer is not None:
            views[row] = 0.1
            views[row, :, answer] = 0.8
    protocol = {**FACTS, **changed}
    entry = {"name": "ten_clip", "protocol": protocol, "protocol_hash": str(sorted(protocol.items()))}
    facts = {"split": "test", "dataset": {"name": "set"}, "results": [entry]}
    paths = [f"{row}.mp4" for row in range(len(answers))]
    return Result(facts, paths, np.array(labels or [0] * len(answers)), CLASSES, {"ten_clip": Scores(np.log(views), ())})


def test_counts_what_changed() -> None:
    labels = [0, 1, 2, 0, 1, 2, 0]
    one = compare(result([0, 1, 1, 1, None, 2, 2], labels), result([0, 2, 2, 0, 1, None, 1], labels))[0]
    assert one.top1 == (3 / 7, 4 / 7)
    assert one.difference == pytest.approx(1 / 7)
    assert [(c.path, c.label, c.first, c.second) for c in one.lost] == [
        ("1.mp4", "jump", "jump", "sit"),
        ("5.mp4", "sit", "sit", None),
    ]
    assert [(c.path, c.first, c.second) for c in one.gained] == [
        ("2.mp4", "jump", "sit"),
        ("3.mp4", "jump", "run"),
        ("4.mp4", None, "jump"),
    ]
    assert one.p_value == 1.0  # 2 to 3 is as even as 5 can be
    assert one.num_videos == 7


def test_videos_are_known_by_their_path() -> None:
    labels, answers = [0, 1, 2, 0], [0, 0, 2, 1]
    first, second = result(answers, labels), result(answers[::-1], labels[::-1])
    second = dataclasses.replace(second, paths=second.paths[::-1])
    assert (compare(first, second)[0].lost, compare(first, second)[0].gained) == ([], [])
    other = result([2, 0, 0, 0], labels[::-1])
    one = compare(first, dataclasses.replace(other, paths=other.paths[::-1]))[0]
    assert [(c.path, c.first, c.second) for c in one.lost] == [("2.mp4", "sit", "run")]
    assert [(c.path, c.first, c.second) for c in one.gained] == []


def test_mcnemar_is_exact() -> None:
    for lost in range(0, 24, 3):
        for gained in range(0, 24, 5):
            changed = lost + gained
            # Of all ways that `changed` coins can fall, those at least as uneven.
            uneven = [comb(changed, i) for i in range(changed + 1) if abs(2 * i - changed) >= abs(lost - gained)]
            assert mcnemar(lost, gained) == float(Fraction(sum(uneven), 2**changed))
    assert mcnemar(3000, 3100) == pytest.approx(0.2051, abs=5e-4)  # z = 99 / sqrt(6100), with the continuity correction


def test_the_interval_is_paired(rng: np.random.Generator) -> None:
    """Two results that agree on nearly every video differ by little, however wrong both are."""
    first = rng.random(400) < 0.6
    second = first.copy()
    second[:12] = True
    low, high = paired_interval(first, second)
    samples = rng.integers(400, size=(10_000, 400))
    expected = np.percentile((second[samples].astype(float) - first[samples]).mean(1), [2.5, 97.5])
    # One video of 400 is the step of both; a quantile of 10,000 draws is placed to less than that.
    assert [low, high] == pytest.approx(expected, abs=1.01 / 400)
    assert low >= 0
    assert high - low < 0.03  # unpaired it would be 0.13 wide


def test_nothing_changed() -> None:
    one = compare(result([0, 1, None]), result([0, 1, None]))[0]
    assert (one.difference, one.interval_95, one.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_only_protocols_of_both_are_compared() -> None:
    first, second = result([0, 1]), result([0, 0])
    other = {**first.facts["results"][0], "name": "one_clip", "protocol_hash": "other"}
    first.facts["results"].insert(0, other)
    first = dataclasses.replace(first, scores={**first.scores, "one_clip": first.scores["ten_clip"]})
    assert [c.protocol for c in compare(first, second)] == ["ten_clip"]


def _with_paths(paths: list[str]) -> Result:
    return dataclasses.replace(result([0, 1]), paths=paths)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (result([0, 1], num_clips=1), r"protocol: .* differ in num_clips 10 and 1; test both by one"),
        (result([0, 1], target_fps=15), r"differ in target_fps None and 15"),
        (result([0, 1, 2]), r"number of videos: 2 in the first result and 3 in the second"),
        (_with_paths(["0.mp4", "9.mp4"]), r"videos: 1\.mp4 is only in the first result"),
        (result([0, 1], [0, 2]), r"labels: 1\.mp4 is 'run' in the first result and 'sit' in the second"),
        (dataclasses.replace(result([0, 1]), classes=["run", "sit", "jump"]), r"classes: 'jump' .* stands where 'sit' does"),
        (dataclasses.replace(result([0, 1]), classes=["run", "sit"]), r"number of classes: 3 in the first result and 2"),
        (dataclasses.replace(result([0, 1]), facts={**result([0]).facts, "split": "val"}), r"split: test .* and val"),
    ],
    ids=["protocol", "new_key", "count", "paths", "labels", "order", "classes", "split"],
)
def test_what_is_not_alike_is_refused(second: Result, message: str) -> None:
    with pytest.raises(InputError, match=f"^compare: .*{message}"):
        compare(result([0, 1]), second)
