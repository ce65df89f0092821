"""report.html of a run folder: one page that needs no network."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from jaxtyping import Int64

from videogn.evaluation.metrics import confusion
from videogn.evaluation.result import read_result

_LARGEST_MATRIX = 40  # classes; above, a matrix is unreadable and the pairs most often confused are listed instead
_CURVES = {
    "loss": {"training": "train/loss_epoch", "val": "val/loss"},
    "top-1": {"training": "train/top1_epoch", "val": "val/top1"},
}


@dataclass(frozen=True)
class Curve:
    """One line of a plot: (epoch, value) pairs."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Plot:
    """Curves over epochs, with the pixel geometry of their drawing."""

    title: str
    curves: tuple[Curve, ...]

    width, height, margin = 460, 220, 52  # pixels

    @property
    def epochs(self) -> tuple[float, float]:
        values = [x for curve in self.curves for x, _ in curve.points]
        return min(values), max(values)

    @property
    def values(self) -> tuple[float, float]:
        """From 0, which both losses and accuracies have as a bound, to the largest value."""
        return 0.0, max(y for curve in self.curves for _, y in curve.points) or 1.0

    def path(self, curve: Curve) -> str:
        """The points of an SVG polyline."""
        (left, right), (bottom, top) = self.epochs, self.values
        across, up = self.width - 1.5 * self.margin, self.height - 1.5 * self.margin
        return " ".join(
            f"{self.margin + across * (x - left) / max(right - left, 1e-9):.1f},"
            f"{self.margin / 2 + up * (1 - (y - bottom) / (top - bottom)):.1f}"
            for x, y in curve.points
        )


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from its config.yaml, metrics.csv, result.json and scores.npz.

    Raises:
        InputError: the folder has no result, or a damaged one.
    """
    result = read_result(folder)
    classes = result.classes
    entries = []
    for entry in result.facts["results"]:
        matrix = confusion(result.scores[entry["name"]].videos(), result.labels)
        entries.append({**entry, "confusion": matrix, "confused": _most_confused(matrix, classes)})
    config = folder / "config.yaml"
    page = _environment().get_template("page.html.jinja")
    text = page.render(
        result=result.facts,
        entries=entries,
        classes=classes,
        num_scored=len(result.labels),
        show_matrix=len(classes) <= _LARGEST_MATRIX,
        plots=_plots(folder / "metrics.csv"),
        config=config.read_text(encoding="utf-8") if config.is_file() else None,
        folder=folder.name,
    )
    unfinished = folder / ".report.html"
    unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")  # a path need not be UTF-8
    os.replace(unfinished, folder / "report.html")
    return folder / "report.html"


def _most_confused(matrix: Int64[np.ndarray, "K K"], classes: list[str]) -> list[tuple[str, str, int]]:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:10]
    pairs = (np.unravel_index(index, wrong.shape) for index in order)
    return [(classes[row], classes[column], int(wrong[row, column])) for row, column in pairs if wrong[row, column]]


def _plots(metrics: Path) -> list[Plot]:
    """Learning curves from metrics.csv; none where nothing was trained."""
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    if metrics.is_file():
        with metrics.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for key, value in row.items():
                    if value and row.get("epoch"):
                        series[key].append((float(row["epoch"]) + 1, float(value)))
    plots = []
    for title, keys in _CURVES.items():
        curves = tuple(Curve(name, tuple(series[key])) for name, key in keys.items() if series[key])
        if curves:
            plots.append(Plot(title, curves))
    return plots


def _environment() -> jinja2.Environment:
    # Class and file names are a stranger's text: everything is escaped.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = lambda value: "-" if value is None else f"{value:.1%}"
    environment.filters["interval"] = lambda bounds: "-" if bounds is None else f"{bounds[0]:.1%} to {bounds[1]:.1%}"
    environment.filters["number"] = lambda value: "-" if value is None else f"{value:.4g}"
    return environment
