"""The page of the loader's benchmark says what was measured, and its calculator divides."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench" / "loader_page.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("loader_page", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_and_result_agree(script: ModuleType) -> None:
    table = script.page(json.loads(script.RESULT.read_text(encoding="utf-8")))
    assert f"{script.BEGIN}\n{table}\n{script.END}" in script.PAGE.read_text(encoding="utf-8")


def test_cores_are_enough_and_no_more(script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    rates = script.clip_rates(json.loads(script.RESULT.read_text(encoding="utf-8")))
    monkeypatch.setattr(sys, "argv", ["loader_page.py", "--rate", "120"])
    script.main()
    printed = dict(line.rsplit(maxsplit=2)[:2] for line in capsys.readouterr().out.splitlines())
    assert {name.strip() for name in printed} == set(rates)
    for name, cores in printed.items():
        rate = rates[name.strip()]
        assert (int(cores) - 1) * rate < 120 <= int(cores) * rate
