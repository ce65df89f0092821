"""Plots as inline SVG, and what their readout says at each place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from videogn.report.page import number, percent

WIDTH, HEIGHT = 420, 250  # units of the drawing; about pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 12, 38
_COUNTS = 46  # height of the bars of a reliability diagram that show how many videos there are
_MARKED = 30  # points; a longer line has no dots


@dataclass(frozen=True)
class Line:
    """One line of a plot: (x, y) pairs, x increasing."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Drawing:
    """A plot to be put into a page.

    Attributes:
        title: its heading.
        svg: the picture.
        legend: names of the lines, in the order of their colours; empty where a line has no points.
        readout: for the script: the place of every x in the picture, its name, and of each line the place and text there.
    """

    title: str
    svg: Markup
    legend: tuple[str, ...]
    readout: dict[str, Any]


def ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """At most so many round values from `low` to `high`: multiples of 1, 2, 2.5 or 5 times a power of ten; or whole numbers."""
    if not high > low:
        return [low]
    for exponent in range(math.floor(math.log10((high - low) / most)), 400):
        for mantissa in (1, 2, 2.5, 5):
            step = mantissa * 10.0**exponent
            if whole and step != round(step):
                continue
            # 1e-9: 0.3 / 0.1 is 2.9999999999999996.
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if last - first < most:
                return [index * step for index in range(first, last + 1)]
    raise AssertionError((low, high))


def curve_plot(title: str, lines: Sequence[Line], form: Callable[[float], str] = number, x_name: str = "epoch") -> Drawing:
    """Lines over epochs, on axes from 0, which losses, accuracies and learning rates have as a bound.

    Args:
        form: how a value is written.
    """
    places = sorted({x for line in lines for x, _ in line.points})
    left, right = places[0], places[-1]
    most = max(0.0, *(y for line in lines for _, y in line.points))
    least = min(0.0, *(y for line in lines for _, y in line.points))
    marks = ticks(least, most or 1.0)
    # Up to the next tick, so that the highest point does not touch the edge.
    top = most * 1.05 if len(marks) < 2 or most - marks[-1] > 1e-9 * (abs(most) + 1) else marks[-1]
    bottom, top = least, max(top, 1e-12)
    area = _Area(left, right, bottom, top, HEIGHT)
    axis_form = "{:.0%}".format if form is percent and marks[-1] >= 0.05 else form
    svg = [area.grid(ticks(left, right, 7, whole=right - left >= 1), marks, number, axis_form, x_name)]
    for index, line in enumerate(lines):
        svg.append(area.line(line, index))
    readout = {
        "at": [round(area.x(x), 1) for x in places],
        "names": [f"{x_name} {x:.4g}" for x in places],
        "lines": [_spots(line, places, area, form) for line in lines],
        "top": _TOP,
        "bottom": HEIGHT - _BOTTOM,
    }
    return Drawing(
        title, _svg(f"{title} over {x_name}s", svg, HEIGHT), tuple(line.name if line.points else "" for line in lines), readout
    )


def reliability_plot(title: str, parts: Sequence[tuple[int, float, float]], bins: int = 15) -> Drawing:
    """How often answers were right (bars) against the probability that they were given, and how many there were (below).

    Args:
        parts: of each part of 0..1 how many videos, their mean probability and their top-1, as `metrics.calibration` gives them.
    """
    height = HEIGHT + 60
    area = _Area(0.0, 1.0, 0.0, 1.0, height, bottom=_BOTTOM + _COUNTS + 10)
    fifths = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    base, floor = height - _BOTTOM, area.y(0)
    most = max((num for num, _, _ in parts), default=1)
    svg = [area.grid(fifths, fifths, "{:.0%}".format, "{:.0%}".format, "probability of the answer", labels_at=base)]
    at, names, spots, texts = [], [], [], []
    for num, confidence, right in parts:
        # 1e-9: the mean of equal probabilities on an edge may lie a rounding beyond it.
        index = min(bins - 1, max(0, math.ceil(confidence * bins - 1e-9) - 1))
        left, wide = area.x(index / bins) + 1, area.x(1 / bins) - area.x(0) - 2
        share = max(1.0, _COUNTS * num / most)
        upper, lower = sorted((area.y(right), area.y(confidence)))
        gap = "over" if confidence > right else "under"
        for kind, y, tall in (("bar", lower, floor - lower), (gap, upper, lower - upper), ("num", base - share, share)):
            svg.append(
                Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                    kind, left, y, wide, tall
                )
            )
        svg.append(Markup('<path class="mark" d="M{:.1f},{:.1f} h{:.1f}"/>').format(left, area.y(right), wide))
        at.append(round(left + wide / 2, 1))
        names.append(f"{index / bins:.0%} to {(index + 1) / bins:.0%}")
        spots.append(round(area.y(right), 1))
        texts.append(
            f"{num:,} {'video' if num == 1 else 'videos'}, mean probability {percent(confidence)}, right {percent(right)}"
        )
    svg.append(
        Markup('<path class="ideal" d="M{:.1f},{:.1f} L{:.1f},{:.1f}"/>').format(area.x(0), floor, area.x(1), area.y(1))
        + Markup('<path class="axis" d="M{:.1f},{:.1f} H{:.1f}"/>').format(area.x(0), base, area.x(1))
        + Markup('<text x="{}" y="{}" text-anchor="end">{:,}</text>').format(_LEFT - 7, base - _COUNTS + 9, most)
        + Markup('<text x="{}" y="{}" text-anchor="end">videos</text>').format(_LEFT - 7, base - 2)
    )
    lines = [{"y": spots, "text": texts, "name": ""}]
    readout = {"at": at, "names": names, "lines": lines, "top": _TOP, "bottom": base}
    return Drawing(title, _svg("share of right answers against their probability", svg, height), (), readout)


def interval_plot(title: str, rows: Sequence[tuple[str, float, Sequence[float] | None, int]]) -> Drawing:
    """A dot for every value, a fraction of 1, and a bar for its 95% interval, one below the other.

    Args:
        rows: name (short: some letters), value, bounds, and the number of its colour.
    """
    height = _TOP + 30 * len(rows) + _BOTTOM
    ends = [end for _, value, bounds, _ in rows for end in (bounds or (value, value))]
    margin = max(0.02, 0.15 * (max(ends) - min(ends)))
    area = _Area(max(0.0, min(ends) - margin), min(1.0, max(ends) + margin), 0, 1, height)
    marks = ticks(area.left, area.right)
    digits = 0 if len(marks) < 2 or marks[1] - marks[0] >= 0.01 else 1
    svg = [area.grid(marks, [], lambda value: f"{value:.{digits}%}", str, title)]
    for index, (name, value, bounds, colour) in enumerate(rows):
        y = _TOP + 30 * index + 15
        low, high = bounds or (value, value)
        svg.append(
            Markup('<g class="s{}"><path class="line" d="M{:.1f},{y} H{:.1f} M{:.1f},{} v10 M{:.1f},{} v10"/>').format(
                colour % 8, area.x(low), area.x(high), area.x(low), y - 5, area.x(high), y - 5, y=y
            )
            + Markup('<circle class="dot" cx="{:.1f}" cy="{}" r="4.5"/></g>').format(area.x(value), y)
            + Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(_LEFT - 9, y + 4, name)
        )
    return Drawing(title, _svg(f"{title} of each run with its 95% interval", svg, height), (), {})


@dataclass(frozen=True)
class Estimates:
    """A line of means: at some places of the axis the mean, and the bounds of its interval where there are any."""

    name: str
    points: Mapping[str, tuple[float, Sequence[float] | None]]


def estimate_plot(
    title: str, places: Sequence[str], lines: Sequence[Estimates], x_name: str, form: Callable[[float], str] = number
) -> Drawing:
    """Means with their intervals over places that stand side by side, such as batch sizes.

    Args:
        places: names, in order; values that double are evenly spaced.
        form: how a value is written.
    """
    ends = [end for line in lines for mean, bounds in line.points.values() for end in (mean, *(bounds or ()))]
    low, high = min(ends), max(ends)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    # None of what is drawn here is below 0, and no share above 100%; an interval may be, and is cut there.
    floor = max(0.0, low - margin) if min(mean for line in lines for mean, _ in line.points.values()) >= 0 else low - margin
    top = min(100.0, high + margin) if title.endswith("%") else high + margin
    area = _Area(-0.5, len(places) - 0.5, floor, top, HEIGHT)
    marks = ticks(area.low, area.high)
    grid = area.grid(list(range(len(places))), marks, lambda place: places[round(place)], number, x_name)
    svg = [grid]
    spots, texts = [], []
    for index, line in enumerate(lines):
        shift = 0.05 * (index - (len(lines) - 1) / 2)  # so that intervals do not hide each other
        at = [(place + shift, *line.points[name]) for place, name in enumerate(places) if name in line.points]
        parts = [
            Markup('<path class="line" d="M{x:.1f},{:.1f} V{:.1f}"/>').format(
                area.y(max(floor, bounds[0])), area.y(min(top, bounds[1])), x=area.x(x)
            )
            for x, _, bounds in at
            if bounds is not None
        ]
        joined = " ".join(f"{area.x(x):.1f},{area.y(mean):.1f}" for x, mean, _ in at)
        drawn = Markup('<polyline class="line{}" points="{}"/>').format(" dashed" if index >= 8 else "", joined)
        dots = [Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(area.x(x), area.y(m)) for x, m, _ in at]
        svg.append(Markup('<g class="s{}">{}{}{}</g>').format(index % 8, Markup("").join(parts), drawn, Markup("").join(dots)))
        found = [line.points.get(name) for name in places]
        spots.append([None if point is None else round(area.y(point[0]), 1) for point in found])
        texts.append([None if point is None else _estimate(point, form) for point in found])
    readout = {
        "at": [round(area.x(place), 1) for place in range(len(places))],
        "names": [f"{x_name} {name}" for name in places],
        "lines": [{"name": line.name, "y": y, "text": text} for line, y, text in zip(lines, spots, texts, strict=True)],
        "top": _TOP,
        "bottom": HEIGHT - _BOTTOM,
    }
    return Drawing(title, _svg(f"{title} over {x_name}", svg, HEIGHT), tuple(line.name for line in lines), readout)


def _estimate(point: tuple[float, Sequence[float] | None], form: Callable[[float], str]) -> str:
    mean, bounds = point
    return form(mean) if bounds is None else f"{form(mean)} ({form(bounds[0])} to {form(bounds[1])})"


@dataclass(frozen=True)
class _Area:
    """The part of a drawing between its axes: values to places."""

    left: float
    right: float
    low: float
    high: float
    height: float
    bottom: float = _BOTTOM

    def x(self, value: float) -> float:
        if self.right <= self.left:  # a single epoch
            return (_LEFT + WIDTH - _RIGHT) / 2
        return _LEFT + (WIDTH - _RIGHT - _LEFT) * (value - self.left) / (self.right - self.left)

    def y(self, value: float) -> float:
        return _TOP + (self.height - self.bottom - _TOP) * (1 - (value - self.low) / (self.high - self.low))

    def grid(
        self,
        across: Sequence[float],
        up: Sequence[float],
        x_form: Callable[[float], str],
        y_form: Callable[[float], str],
        x_name: str,
        labels_at: float | None = None,
    ) -> Markup:
        floor = self.height - self.bottom
        below = floor if labels_at is None else labels_at
        parts = [
            Markup('<path class="grid" d="M{},{y:.1f} H{}"/><text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                _LEFT, WIDTH - _RIGHT, _LEFT - 7, self.y(value) + 4, y_form(value), y=self.y(value)
            )
            for value in up
        ]
        parts += [
            Markup('<path class="grid" d="M{x:.1f},{} V{}"/><text x="{x:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                _TOP, floor, below + 16, x_form(value), x=self.x(value)
            )
            for value in across
        ]
        parts.append(Markup('<path class="axis" d="M{},{} V{} H{}"/>').format(_LEFT, _TOP, floor, WIDTH - _RIGHT))
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        parts.append(Markup('<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>').format(middle, below + 32, x_name))
        return Markup("").join(parts)

    def line(self, line: Line, index: int) -> Markup:
        spots = [(self.x(x), self.y(y)) for x, y in line.points]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        dots = [Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(*spot) for spot in spots]
        dots = dots if len(spots) <= _MARKED else []
        drawn = Markup('<polyline class="line{}" points="{}"/>').format(" dashed" if index >= 8 else "", points)
        return Markup('<g class="s{}">{}{}</g>').format(index % 8, drawn, Markup("").join(dots))


def _svg(label: str, parts: Sequence[Markup], height: float) -> Markup:
    return Markup('<svg role="img" tabindex="0" aria-label="{}" viewBox="0 0 {} {:g}">{}</svg>').format(
        label, WIDTH, height, Markup("").join(parts)
    )


def _spots(line: Line, places: Sequence[float], area: _Area, form: Callable[[float], str]) -> dict[str, Any]:
    values = dict(line.points)
    return {
        "name": line.name,
        "y": [round(area.y(values[x]), 1) if x in values else None for x in places],
        "text": [form(values[x]) if x in values else None for x in places],
    }
