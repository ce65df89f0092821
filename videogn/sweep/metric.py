"""What a search compares its trials by: a metric on val, from metrics.csv."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

# Whether more is better. A test's metrics are none of them: what chose a model cannot test it.
METRICS = {"val/top1": True, "val/loss": False}
EPOCHS = ("last", "best")
LOSS = "train/loss_step"  # of a training that was stopped because it diverged, the last one is no number


@dataclass(frozen=True)
class Metric:
    """A column of metrics.csv.

    Attributes:
        name: one of METRICS.
        epoch: whose value counts, that of the last epoch or the best of all.
        maximize: whether more is better.
    """

    name: str
    epoch: str
    maximize: bool

    def read(self, run: Path) -> float | None:
        """Of a run folder: not a number where the training diverged, None where metrics.csv has no such value."""
        values = _column(run, self.name)
        if self.epoch == "best" and (numbers := [value for value in values if not math.isnan(value)]):
            return max(numbers) if self.maximize else min(numbers)
        return values[-1] if values else None

    def best(self, values: list[float]) -> float:
        return max(values) if self.maximize else min(values)

    def text(self, value: float) -> str:
        """For people: top-1 in per cent."""
        if not math.isfinite(value):
            return "diverged"
        return f"{value:.4f}" if self.name.endswith("loss") else f"{value:.1%}"

    def __str__(self) -> str:
        return f"{self.name} of the {self.epoch} epoch"


def diverged(run: Path) -> bool:
    """Whether a training that failed did so because its loss was no finite number."""
    losses = _column(run, LOSS)
    return bool(losses) and not math.isfinite(losses[-1])


def _column(run: Path, name: str) -> list[float]:
    """Of metrics.csv; nothing where it has no such column, or is damaged."""
    try:
        with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
            return [float(text) for row in csv.DictReader(file) if (text := row.get(name))]
    except (OSError, ValueError):
        return []
