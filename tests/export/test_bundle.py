"""What an artifact carries."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from videogn.export.bundle import Bundle
from videogn.export.exporter import Source
from videogn.types import InputError

INPUT = {"is_uint8": False, "shape": [None, 3, 4, 32, 32]}


def test_it_comes_back(source: Source) -> None:
    bundle = replace(source.bundle, input=INPUT, licence="CC BY 4.0, é", proof={"top1_agreement": 1.0})
    assert Bundle.loads(bundle.dumps(), "m.onnx") == bundle


def changed(source: Source, **values: Any) -> str:
    return json.dumps(json.loads(replace(source.bundle, input=INPUT).dumps()) | values)


def test_what_is_not_one(source: Source) -> None:
    texts = [None, "", "{}", "[]", "noise", b"\xff"]
    texts += [changed(source, input={**INPUT, "shape": shape}) for shape in ([4], [0, 3, 4, 32, 32], ["4", 3, 4, 32, 32], None)]
    texts += [changed(source, input={**INPUT, "is_uint8": "no"}), changed(source, classes=None)]
    texts.append('{"classes": ' + "[" * 100_000)
    for text in texts:
        with pytest.raises(InputError, match=r"^m\.onnx: without videogn's labels and preprocessing; export it with"):
            Bundle.loads(text, "m.onnx")
