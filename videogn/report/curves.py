"""Learning curves of a run, from its metrics.csv."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from videogn.report.plot import Line

_MOST_POINTS = 400  # of a line: more than a plot has pixels
_MOST_RATES = 4  # lines of learning rates; with layer-wise decay there is one for every layer

QUANTITIES: Mapping[str, Mapping[str, str]] = {
    "loss": {"training": "train/loss_epoch", "val": "val/loss"},
    "top-1": {"training": "train/top1_epoch", "val": "val/top1"},
}


def read_curves(metrics: Path) -> dict[str, list[Line]]:
    """Of `loss`, `top-1` and `learning rate` the lines that a metrics.csv has, over epochs.

    The value of the first epoch stands at 1, its end. A learning rate is written by step, and stands at its share of the epochs.
    An epoch that a resumed run did again counts once, as it was done last; a value that is not finite is left out.
    """
    if not metrics.is_file():
        return {}
    by_epoch: dict[str, dict[float, float]] = defaultdict(dict)
    rates: dict[str, dict[float, float]] = defaultdict(dict)
    ends: dict[float, float] = {}  # epoch, counted from 1: the steps done at its end
    with metrics.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values = {key: number for key, text in row.items() if key and (number := _finite(text)) is not None}
            step, epoch = values.get("step"), values.get("epoch")
            for key, value in values.items():
                if key.startswith("lr-") and step is not None:
                    rates[key][step + 1] = value
                elif epoch is not None:
                    by_epoch[key][epoch + 1] = value
            if epoch is not None and step is not None and any(k.startswith("val/") or k.endswith("_epoch") for k in values):
                ends[epoch + 1] = step + 1
    curves = {
        title: [Line(name, tuple(sorted(by_epoch[key].items()))) for name, key in keys.items() if by_epoch[key]]
        for title, keys in QUANTITIES.items()
    }
    curves["learning rate"] = _rates(rates, ends)
    return {title: [_thinned(line) for line in lines] for title, lines in curves.items() if lines}


def _rates(rates: Mapping[str, Mapping[float, float]], ends: Mapping[float, float]) -> list[Line]:
    """Those that differ; of many the largest and the smallest."""
    if not ends:
        return []
    epochs, steps = [0.0, *sorted(ends)], [0.0, *(ends[epoch] for epoch in sorted(ends))]
    lines: dict[tuple[tuple[float, float], ...], str] = {}
    for name, values in rates.items():
        done = sorted(values)
        at = np.interp(done, steps, epochs).tolist()
        points = tuple((x, values[step]) for x, step in zip(at, done, strict=True) if step <= steps[-1])
        if points:
            lines.setdefault(points, name.removeprefix("lr-"))
    found = [Line(name, points) for points, name in lines.items()]
    if len(found) == 1:
        return [Line("learning rate", found[0].points)]
    if len(found) > _MOST_RATES:
        found.sort(key=lambda line: max(y for _, y in line.points))
        return [Line(f"largest, {found[-1].name}", found[-1].points), Line(f"smallest, {found[0].name}", found[0].points)]
    return found


def _thinned(line: Line) -> Line:
    """Of many points as many as a plot can show, the first and the last among them."""
    if len(line.points) <= _MOST_POINTS:
        return line
    kept: Iterable[int] = np.unique(np.linspace(0, len(line.points) - 1, _MOST_POINTS).round().astype(int)).tolist()
    return Line(line.name, tuple(line.points[index] for index in kept))


def _finite(text: str | list[str] | None) -> float | None:
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
