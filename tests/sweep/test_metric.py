"""Which number of metrics.csv a trial is told by."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from videogn.sweep.metric import LOSS, METRICS, Metric, diverged
from videogn.training import classifier

# Steps and epochs have rows of their own; the third epoch was validated again after a resumption.
LINES = """epoch,step,train/loss,val/loss,val/top1,test/top1
0,4,2.0,,,
0,4,,1.5,0.25,
1,9,,1.0,0.75,
2,14,,1.2,0.4,
2,14,,1.2,0.5,
2,14,,,,0.99
"""


def read(tmp_path: Path, name: str, epoch: str, lines: str = LINES) -> float | None:
    (tmp_path / "metrics.csv").write_text(lines)
    return Metric(name, epoch, METRICS[name]).read(tmp_path)


def test_last_and_best(tmp_path: Path) -> None:
    assert read(tmp_path, "val/top1", "last") == 0.5
    assert read(tmp_path, "val/top1", "best") == 0.75
    assert read(tmp_path, "val/loss", "last") == 1.2
    assert read(tmp_path, "val/loss", "best") == 1.0


def test_a_training_that_diverged(tmp_path: Path) -> None:
    lines = "epoch,val/loss\n0,2.5\n1,nan\n"
    assert math.isnan(read(tmp_path, "val/loss", "last", lines) or 0)
    assert read(tmp_path, "val/loss", "best", lines) == 2.5
    assert math.isnan(read(tmp_path, "val/loss", "best", "epoch,val/loss\n1,nan\n") or 0)


@pytest.mark.parametrize(
    ("lines", "has"),
    [
        ("epoch,train/loss_step\n0,2.5\n1,nan\n", True),
        ("epoch,train/loss_step,val/loss\n0,inf,\n0,,1.0\n", True),
        ("epoch,train/loss_step\n0,nan\n1,2.5\n", False),  # it went on with other values
        ("epoch,val/loss\n0,nan\n", False),
        ("", False),
    ],
)
def test_a_failure_that_is_a_divergence(tmp_path: Path, lines: str, has: bool) -> None:
    (tmp_path / "metrics.csv").write_text(lines)
    assert diverged(tmp_path) == has
    assert LOSS in classifier.METRICS


@pytest.mark.parametrize(
    "lines",
    ["", "epoch,val/loss\n0,1\n", LINES.replace("val/top1", "val/top2"), "epoch,val/top1\n0,x\n"],
    ids=["empty", "none", "other", "damaged"],
)
def test_no_such_value(tmp_path: Path, lines: str) -> None:
    assert read(tmp_path, "val/top1", "last", lines) is None
    assert Metric("val/top1", "last", True).read(tmp_path / "none") is None


def test_the_metrics_are_those_that_a_training_logs_on_val() -> None:
    assert set(METRICS) <= set(classifier.METRICS)
    assert not any(name.startswith("test") for name in METRICS)


@pytest.mark.parametrize(("name", "value", "text"), [("val/top1", 0.5, "50.0%"), ("val/loss", 0.5, "0.5000")])
def test_for_people(name: str, value: float, text: str) -> None:
    metric = Metric(name, "last", True)
    assert metric.text(value) == text
    assert metric.text(math.nan) == metric.text(-math.inf) == "diverged"
