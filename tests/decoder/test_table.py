"""The table of docs/decoders.md is the one that was measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_page_and_result_agree():
    spec = importlib.util.spec_from_file_location("compare_decoders", ROOT / "scripts" / "compare_decoders.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    result = json.loads(script.RESULT.read_text(encoding="utf-8"))
    assert script.page(result) in script.PAGE.read_text(encoding="utf-8")
    assert not any("WRONG" in value for row in result["files"] for value in row.values())
