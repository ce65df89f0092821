"""Pieces and segments against the definition, instant by instant."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogn.prediction.timeline import Segment, Timeline, pieces, segments

NAMES = ("a", "b", "c")


@st.composite
def windows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As they come: starts and ends that do not decrease, with overlaps of any depth, gaps, and windows that are alike."""
    count = draw(st.integers(1, 12))
    starts = np.cumsum([0, *draw(st.lists(st.integers(0, 5), min_size=count - 1, max_size=count - 1))])
    ends = np.maximum.accumulate(starts + draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)))
    logits = np.array(draw(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=count, max_size=count)))
    powers = np.exp(logits)
    return starts * 0.5, ends * 0.5, powers / powers.sum(1, keepdims=True)


def mean_at(instant: float, starts: np.ndarray, ends: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The definition: the mean of the windows that cover it; in a gap, the last that ends before it or the first behind it."""
    covers = (starts <= instant) & (instant < ends)
    if not covers.any():
        before, behind = ends[ends <= instant].max(), starts[starts > instant].min()
        covers = starts == behind
        if instant < (before + behind) / 2:
            # Only the last of those that end there reaches on: an earlier one ended where another did.
            covers = np.arange(len(starts)) == np.flatnonzero(ends == before)[-1]
        else:
            covers = np.arange(len(starts)) == np.flatnonzero(covers)[0]
            covers |= (starts <= instant) & (instant < ends)
    return probabilities[covers].mean(0)


@settings(deadline=None)
@given(windows())
def test_pieces_are_the_mean_of_the_windows_that_cover_them(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    starts, ends, probabilities = case
    found = list(pieces(starts, ends, probabilities))
    assert found[0].start_seconds == 0
    assert found[-1].end_seconds == ends[-1]
    assert all(one.end_seconds == other.start_seconds for one, other in pairwise(found))
    for instant in np.arange(0.0625, ends[-1], 0.125):  # never on a border, which are multiples of a quarter
        (piece,) = (p for p in found if p.start_seconds <= instant < p.end_seconds)
        np.testing.assert_allclose(piece.probabilities, mean_at(instant, starts, ends, probabilities), rtol=1e-12)


@settings(deadline=None)
@given(windows())
def test_segments_cover_all_time_with_the_most_probable_class(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    starts, ends, probabilities = case
    timeline = Timeline.of(starts, ends, probabilities, float(ends[-1]), NAMES)
    found = timeline.segments
    assert (found[0].start_seconds, found[-1].end_seconds) == (0, timeline.duration_seconds)
    for one, other in pairwise(found):
        assert one.end_seconds == other.start_seconds
        assert one.label != other.label
    for segment in found:
        # The integral of the probability over the segment, by small steps that no border divides.
        instants = np.arange(segment.start_seconds + 0.03125, segment.end_seconds, 0.0625)
        answers = np.stack([mean_at(t, starts, ends, probabilities) for t in instants])
        place = NAMES.index(segment.label)
        np.testing.assert_allclose(answers[:, place], answers.max(1), rtol=1e-12)
        assert segment.probability == pytest.approx(answers[:, place].mean(), rel=1e-9)
    assert [w.top[0].label for w in timeline.windows] == [NAMES[i] for i in probabilities.argmax(1)]


def test_worked_example() -> None:
    """The one of docs/predict.md."""
    starts, ends = np.array([0.0, 3.0, 10.0]), np.array([4.0, 7.0, 12.0])
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]])
    found = list(pieces(starts, ends, probabilities))
    assert [(p.start_seconds, p.end_seconds) for p in found] == [(0, 3), (3, 4), (4, 8.5), (8.5, 12)]
    np.testing.assert_allclose([p.probabilities[0] for p in found], [0.9, 0.6, 0.3, 0.2])
    one, other = segments(found, ("jump", "run"))
    assert one == Segment(0, 4, "jump", pytest.approx((3 * 0.9 + 1 * 0.6) / 4))
    assert other == Segment(4, 12, "run", pytest.approx((4.5 * 0.7 + 3.5 * 0.8) / 8))
