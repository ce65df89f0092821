"""Parameters and multiply-adds against what is published, and docs/models.md against what is counted."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "count_models.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("count_models", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["count_models"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


SCRIPTED = load()


@pytest.mark.turns
@pytest.mark.parametrize("row", SCRIPTED.ROWS, ids=lambda row: " ".join([row.name, *row.changes]))
def test_counts_are_the_published_ones(row: Any) -> None:
    counted = SCRIPTED.count(row)
    lines = [line for line in SCRIPTED.PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    (line,) = [x for x in lines if x.startswith(f"| {' '.join([row.name, *row.changes])} |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2] == f"{counted.parameters / 1e6:.2f}"
    assert cells[4].split(",")[0] == f"{counted.multiply_adds / 1e9:.2f}"
    # Up to one of the last digit that is printed: some round it and some cut it.
    if row.parameters is not None:
        digit = 10.0 ** -len(row.parameters.partition(".")[2])
        assert abs(counted.parameters / 1e6 - float(row.parameters)) < digit
    if row.multiply_adds is not None:
        giga = (counted.with_norms if row.with_norms else counted.multiply_adds) / 1e9
        digit = 10.0 ** -len(row.multiply_adds.partition(".")[2])
        assert abs(giga - float(row.multiply_adds)) < digit


def test_every_model_is_counted() -> None:
    conf = SCRIPT.parents[1] / "conf" / "model"
    assert {row.name for row in SCRIPTED.ROWS} == {path.stem for path in conf.glob("*.yaml")}


def test_the_paper_s_two_streams_have_25_million() -> None:
    """Table 1 of arXiv:1705.07750; each stream has its own."""
    (row,) = [row for row in SCRIPTED.ROWS if row.name == "inception_i3d"]
    assert round(2 * SCRIPTED.count(row).parameters / 1e6) == 25
