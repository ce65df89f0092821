"""What a video shows when: from the answers of sliding windows to segments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from videogn.prediction.answer import Answer, ranked


class Piece(NamedTuple):
    """A stretch of time in which no window begins or ends."""

    start_seconds: float
    end_seconds: float
    probabilities: Float64[np.ndarray, " K"]


class Segment(NamedTuple):
    """A stretch of time with one answer; its probability is the mean over the time."""

    start_seconds: float
    end_seconds: float
    label: str
    probability: float


class Window(NamedTuple):
    """One window and its answer, the most probable first."""

    start_seconds: float
    end_seconds: float
    top: tuple[Answer, ...]


@dataclass(frozen=True, eq=False)
class Timeline:
    """What a video shows when. Seconds count from its first frame.

    Attributes:
        windows: as they were scored.
        segments: from 0 to duration_seconds, without gap or overlap.
        duration_seconds: of the video.
        probabilities: of every window, in the order of `classes`.
        classes: K names.
    """

    windows: tuple[Window, ...]
    segments: tuple[Segment, ...]
    duration_seconds: float
    probabilities: Float[np.ndarray, "V K"]
    classes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        starts: Float64[np.ndarray, " V"],
        ends: Float64[np.ndarray, " V"],
        probabilities: Float[np.ndarray, "V K"],
        duration_seconds: float,
        classes: Sequence[str],
        top: int = 5,
    ) -> Timeline:
        """The timeline of windows in order, the first from 0, the last to `duration_seconds`."""
        answers = [ranked(row, classes, top) for row in probabilities]
        windows = tuple(Window(*facts) for facts in zip(starts.tolist(), ends.tolist(), answers, strict=True))
        found = segments(pieces(starts, ends, probabilities), classes)
        return cls(windows, tuple(found), duration_seconds, probabilities, tuple(classes))

    def pieces(self) -> Iterator[Piece]:
        """The pieces of which the segments are made; see `pieces`."""
        starts, ends = (np.array([window[place] for window in self.windows]) for place in range(2))
        return pieces(starts, ends, self.probabilities)

    def as_dict(self) -> dict[str, Any]:
        windows = [{**w._asdict(), "top": [answer._asdict() for answer in w.top]} for w in self.windows]
        return {"duration_seconds": self.duration_seconds, "windows": windows, "segments": [s._asdict() for s in self.segments]}


def pieces(
    starts: Float64[np.ndarray, " V"], ends: Float64[np.ndarray, " V"], probabilities: Float[np.ndarray, "V K"]
) -> Iterator[Piece]:
    """Time, cut wherever a window begins or ends; each piece has the mean of the windows that cover it.

    A stretch that no window covers, where windows are further apart than they last, is parted in its middle and goes to the
    windows beside it. The pieces follow each other from the first start to the last end.

        windows 0 to 4 s and 3 to 7 s: the pieces 0-3 (the first), 3-4 (the mean of both), 4-7 (the second)
        windows 0 to 2 s and 6 to 8 s: the pieces 0-4 and 4-8

    Args:
        starts, ends: seconds; neither decreases.
    """
    middles = (ends[:-1] + starts[1:]) / 2
    is_apart = starts[1:] > ends[:-1]
    starts = np.append(starts[:1], np.where(is_apart, middles, starts[1:]))
    ends = np.append(np.where(is_apart, middles, ends[:-1]), ends[-1:])
    borders = np.unique(np.concatenate([starts, ends]))
    first = np.searchsorted(ends, borders[:-1], side="right")  # no window before it lasts beyond the border
    behind = np.searchsorted(starts, borders[:-1], side="right")
    for start, end, one, other in zip(borders[:-1].tolist(), borders[1:].tolist(), first.tolist(), behind.tolist(), strict=True):
        yield Piece(start, end, probabilities[one:other].mean(0, dtype=np.float64))


def segments(pieces: Iterable[Piece], classes: Sequence[str]) -> Iterator[Segment]:
    """Neighbouring pieces with the same most probable class as one; its probability is the mean of theirs, weighted by time."""
    current: Segment | None = None
    for start, end, probabilities in pieces:
        best = int(probabilities.argmax())
        new = Segment(start, end, classes[best], float(probabilities[best]))
        if current is not None and current.label == new.label:
            before, now = current.end_seconds - current.start_seconds, end - start
            mean = (current.probability * before + new.probability * now) / (before + now)
            current = current._replace(end_seconds=end, probability=mean)
            continue
        if current is not None:
            yield current
        current = new
    if current is not None:
        yield current
