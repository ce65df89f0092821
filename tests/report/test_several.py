"""Runs side by side, against what was written into them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from videogn.evaluation.compare import compare
from videogn.evaluation.result import read_result
from videogn.report.model import Inspection
from videogn.report.several import letters, names, write_comparison
from videogn.types import InputError

CLASSES = ["a", "<b>", "c", "d", "e", "f", "g"]


@pytest.fixture
def runs(tmp_path: Path, write_run: Callable[..., Path]) -> list[Path]:
    """Of 40 videos the first has 10 right, the second 35, the third is of other classes."""
    labels = [row % 7 for row in range(40)]
    few = [label if row < 10 else (label + 1) % 7 for row, label in enumerate(labels)]
    many = [label if row >= 5 else (label + 1) % 7 for row, label in enumerate(labels)]
    config = {"batch_size": 2, "seed": 0, "norm": {"_target_": "videogn.norm.group_norm.GroupNorm", "num_groups": 32}}
    other = {**config, "batch_size": 4, "out": "/x"}
    return [
        write_run(tmp_path / "one" / "run", CLASSES, labels, few, config={**config, "out": "/y"}, config_hash="first"),
        write_run(tmp_path / "two" / "run", CLASSES, labels, many, config=other, curves=5),
        write_run(tmp_path / "three", CLASSES[:6], [0, 1], [0, 0], config=None, curves=0),
    ]


def text_of(path: Path) -> str:
    page = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^<>]*>", " ", page)))


def row_of(path: Path, name: str) -> list[str]:
    row = re.search(rf'<tr><th scope="row">(?:<code>)?{re.escape(name)}(?:</code>)?</th>(.*?)</tr>', path.read_text(), re.S)
    assert row, name
    return re.findall(r"<td[^>]*>(.*?)</td>", row[1], re.S)


def test_figures_stand_side_by_side(runs: list[Path], tmp_path: Path) -> None:
    page = write_comparison(runs, tmp_path / "page.html")
    # The protocol's hash is that of all three.
    assert row_of(page, "top-1") == ["25.0%", "87.5%", "50.0%"]
    assert row_of(page, "batch size") == ["2", "4", "-"]
    assert row_of(page, "norm") == ["GroupNorm, num groups 32", "GroupNorm, num groups 32", "-"]
    assert row_of(page, "top-5")[2] == "100.0%"
    starred = re.findall(r'<th scope="row">([^<]*)</th>(?:<td>[^<]*</td>)*<td class="best">([^<]*)</td>', page.read_text())
    losses = row_of(page, "loss")
    assert dict(starred)["top-1"] == "87.5%"
    assert dict(starred)["loss"] == min(losses, key=float)
    assert len(set(losses)) == 3


def test_only_keys_that_differ(runs: list[Path], tmp_path: Path) -> None:
    page = write_comparison(runs[:2], tmp_path / "page.html")
    assert row_of(page, "batch_size") == ["2", "4"]
    text = page.read_text()
    assert "<code>seed</code>" not in text
    assert "<code>out</code>" not in text


def test_the_later_against_the_first(runs: list[Path], tmp_path: Path) -> None:
    text = text_of(write_comparison(runs, tmp_path / "page.html"))
    (known,) = compare(read_result(runs[0]), read_result(runs[1]))
    assert "+62.5%" in text
    low, high = known.interval_95
    assert f"{100 * low:+.1f}% to {100 * high:+.1f}%" in text
    assert f"5 lost, 30 gained, p = {known.p_value:.2g}" in text
    assert "30 gained c/10.mp4 (d): e -> d" in text
    assert text.count(" -> ") == 5 + 20  # the first twenty
    assert "10 more; videogn compare" in text
    # Why the third is not compared.
    assert "number of classes: 7 in the first result and 6 in the second" in text


def test_runs_of_one_name_are_told_apart(runs: list[Path], tmp_path: Path) -> None:
    assert names(runs) == ["one/run", "two/run", "three"]
    assert names([runs[0], runs[0]]) == ["run", "run"]  # the same folder: their letters differ
    deep = [tmp_path / part / "same" / "run" for part in ("x", "y")]
    assert names([*deep, tmp_path / "z" / "run"]) == ["x/same/run", "y/same/run", "z/run"]
    assert letters(28)[0::9] == ["A", "J", "S", "AB"]
    text = text_of(write_comparison(runs, tmp_path / "page.html"))
    assert "A one/run" in text
    assert "B two/run" in text


def test_curves_of_all_runs_share_a_plot(runs: list[Path], tmp_path: Path) -> None:
    page = write_comparison(runs, tmp_path / "page.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    plot = data["plots"]["curve-1"]
    assert plot["names"] == [f"epoch {epoch}" for epoch in range(1, 6)]
    assert [line["name"] for line in plot["lines"]] == ["A", "B", "C"]
    assert [line["text"] for line in plot["lines"]] == [
        ["2.5", "1.25", "0.8333", None, None],
        ["2.5", "1.25", "0.8333", "0.625", "0.5"],
        [None] * 5,
    ]


def test_networks_where_they_are_known(runs: list[Path], tmp_path: Path) -> None:
    network = Inspection((), 1_500_000, 0, 2_000_000_000, 2**21, 0, "32-true")
    page = write_comparison(runs[:2], tmp_path / "page.html", [None, network])
    assert row_of(page, "parameters") == ["-", "1.5 M"]
    assert row_of(page, "FLOPs a clip") == ["-", "2 G"]
    assert row_of(page, "kept a clip for backward") == ["-", "2 MiB"]
    with pytest.raises(AssertionError, match="parameters"):
        row_of(write_comparison(runs, page), "parameters")


def test_one_run_and_none(runs: list[Path], tmp_path: Path) -> None:
    assert "1 run side by side" in text_of(write_comparison(runs[:1], tmp_path / "page.html"))
    with pytest.raises(InputError, match="no run folder; give one or more"):
        write_comparison([], tmp_path / "page.html")
    with pytest.raises(InputError, match="no result"):
        write_comparison([runs[0], tmp_path], tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()


def test_names_are_text(runs: list[Path], tmp_path: Path) -> None:
    page = write_comparison(runs, tmp_path / "page.html").read_text()
    assert "<b>" not in page
    assert "(&lt;b&gt;)" in page
