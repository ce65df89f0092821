"""Places in a drawing against the values that they stand for."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from videogn.evaluation.metrics import calibration
from videogn.report.page import percent
from videogn.report.plot import WIDTH, Estimates, Line, curve_plot, estimate_plot, interval_plot, reliability_plot, ticks


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0.07), (1, 196), (0, 2.303), (0.983, 0.991), (0, 1e-7), (-3, 5), (0, 7e12), (0.3, 0.9)]
)
def test_ticks_are_round_within_and_evenly_spaced(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 6
    slack = 1e-9 * (high - low)
    assert low - slack <= marks[0]
    assert marks[-1] <= high + slack
    steps = np.diff(marks)
    assert np.allclose(steps, steps[0], rtol=1e-6)
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5)) < 1e-6
    # Another tick at an end would lie outside.
    assert marks[0] - steps[0] < low + slack
    assert marks[-1] + steps[0] > high - slack


def test_whole_ticks() -> None:
    assert ticks(1, 3, 7, whole=True) == [1, 2, 3]
    assert ticks(4, 4) == [4]


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def places(line: ElementTree.Element) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]  # type: ignore[misc]


def test_a_line_stands_at_its_values_within_the_axes() -> None:
    plot = curve_plot("loss", [Line("a", ((1, 2.0), (2, 1.0), (5, 0.5))), Line("b", ((2, 4.0), (4, 0.0)))])
    svg = drawn(plot.svg)
    first, second = (places(line) for line in svg.iter("polyline"))
    x = [p[0] for p in first]
    assert (x[1] - x[0]) / (x[2] - x[1]) == pytest.approx(1 / 3, abs=0.01)  # 1 to 2, 2 to 5
    assert second[0][0] == x[1]
    base, top = second[1][1], second[0][1]  # of 0 and of 4; SVG's y points down
    assert base > top
    for (_, y), value in zip(first, (2.0, 1.0, 0.5), strict=True):
        assert (base - y) / (base - top) == pytest.approx(value / 4, abs=0.002)
    axis = re.fullmatch(r"M(\S+),(\S+) V(\S+) H(\S+)", svg.find("path[@class='axis']").attrib["d"])  # type: ignore[union-attr]
    assert axis
    left, upper, lower, right = map(float, axis.groups())
    for px, py in first + second:
        assert left <= px <= right
        assert upper <= py <= lower
    assert right <= WIDTH


def test_the_readout_says_what_is_drawn() -> None:
    plot = curve_plot("top-1", [Line("a", ((1, 0.25), (3, 0.5))), Line("b", ((2, 0.75),))], percent)
    assert plot.readout["names"] == ["epoch 1", "epoch 2", "epoch 3"]
    assert [line["text"] for line in plot.readout["lines"]] == [["25.0%", None, "50.0%"], [None, "75.0%", None]]
    spots = [p for line in drawn(plot.svg).iter("polyline") for p in places(line)]
    said = [(x, y) for line in plot.readout["lines"] for x, y in zip(plot.readout["at"], line["y"], strict=True) if y is not None]
    assert said == spots


@pytest.mark.parametrize("points", [((1, 0.0),), ((1, 0.0), (2, 0.0)), ((1, -2.0), (2, 3.0)), ((1, 1e30), (2, 1e-30))])
def test_degenerate_lines_have_finite_places(points: tuple[tuple[float, float], ...]) -> None:
    spots = [p for line in drawn(curve_plot("x", [Line("a", points)]).svg).iter("polyline") for p in places(line)]
    assert len(spots) == len(points)
    assert all(0 <= x <= WIDTH and 0 <= y <= 250 for x, y in spots)


def test_names_are_escaped() -> None:
    plot = curve_plot("<b>", [Line("<i>", ((1, 1.0),))], str, "<u>")
    drawn(plot.svg)  # well formed
    assert "<b>" not in plot.svg
    assert "<u>" not in plot.svg


def test_reliability_bars_are_the_bins(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(300, 4)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.where(rng.random(300) < 0.6, probabilities.argmax(1), rng.integers(4, size=300))
    parts = calibration(probabilities, labels)
    plot = reliability_plot("c", parts)
    svg = drawn(plot.svg)
    ideal = re.fullmatch(r"M(\S+),(\S+) L(\S+),(\S+)", svg.find("path[@class='ideal']").attrib["d"])  # type: ignore[union-attr]
    assert ideal
    left, base, right, top = map(float, ideal.groups())
    marks = [tuple(map(float, re.findall(r"[\d.]+", p.attrib["d"]))) for p in svg.iter("path") if p.attrib.get("class") == "mark"]
    counts = [float(r.attrib["height"]) for r in svg.iter("rect") if r.attrib["class"] == "num"]
    assert len(marks) == len(parts) == len(counts)
    for (x, y, wide), height, (num, confidence, share) in zip(marks, counts, parts, strict=True):
        assert (base - y) / (base - top) == pytest.approx(share, abs=0.002)
        # The mean probability of a bin lies in it.
        assert (x - 1 - left) / (right - left) <= confidence + 0.002
        assert (x + wide + 1 - left) / (right - left) >= confidence - 0.002
        assert height / max(counts) == pytest.approx(num / max(n for n, _, _ in parts), abs=0.03)


def test_a_probability_on_an_edge_belongs_to_the_bin_below_it() -> None:
    probabilities = np.tile([0.2, 0.2, 0.2, 0.2, 0.2], (3, 1))  # 3 / 15; the mean of three is 0.20000000000000004
    plot = reliability_plot("c", calibration(probabilities, np.zeros(3, np.int64)))
    assert plot.readout["names"] == ["13% to 20%"]


@pytest.mark.parametrize(("title", "highest"), [("Top-1 error, %", 100.0), ("Loss", 120.0)])
def test_an_interval_is_cut_where_no_value_can_be(title: str, highest: float) -> None:
    """The upper end, in the scale of the marks on the axis."""
    line = Estimates("A", {"two": (50.0, (-20.0, 120.0)), "four": (10.0, None)})
    svg = drawn(estimate_plot(title, ["two", "four"], [line], "batch").svg)
    marks = {float(t.text): float(t.get("y")) for t in svg.iter() if (t.text or "").replace(".", "").isdigit() and t.get("y")}
    (down,) = [p.get("d") for p in svg.iter() if p.get("class") == "line" and p.get("d")]
    bottom, top = map(float, re.findall(r"M[\d.]+,([\d.]+) V([\d.]+)", down)[0])
    scale = (marks[0] - marks[max(marks)]) / max(marks)
    assert (bottom - top) / scale == pytest.approx(highest, abs=0.5)


def test_intervals_reach_from_bound_to_bound() -> None:
    svg = drawn(interval_plot("top-1", [("A", 0.5, (0.4, 0.7), 0), ("B", 0.6, None, 1)]).svg)
    dots = [float(dot.attrib["cx"]) for dot in svg.iter("circle")]
    low, high = (
        float(v)
        for v in re.findall(r"M(\S+),\S+ H(\S+)", next(g for g in svg.iter("g")).find("path").attrib["d"])[0]  # type: ignore[union-attr]
    )
    assert (dots[0] - low) / (high - low) == pytest.approx(1 / 3, abs=0.01)
    assert (dots[1] - low) / (high - low) == pytest.approx(2 / 3, abs=0.01)
