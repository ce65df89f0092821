"""What an artifact says of itself is damaged in one value: a line, and no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest

BAD = [None, "x", -1, 0, 1e308, [], {}, [1, 2], True]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    from videogn.cli import main

    path = tmp_path_factory.mktemp("artifact") / "m.onnx"
    with pytest.raises(SystemExit) as ended:
        main.main(["export", f"checkpoint={trained}", f"out={path}", "export.num_clips=1", "export.latency=null"])
    assert ended.value.code == 0
    model = onnx.load(path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == "videogn")
    return model, json.loads(entry.value)


@pytest.mark.turns
@pytest.mark.parametrize(
    "key",
    [
        *(("config", key) for key in ("mean", "std", "evaluation", "decoder")),
        ("config", "std", 0),
        *(("config", "evaluation", "ten_clip", key) for key in ("sampler", "transform", "aggregation")),
        *(("config", "evaluation", "ten_clip", "transform", key) for key in ("crop_size", "short_side", "crops")),
        *(("config", "evaluation", "ten_clip", "sampler", key) for key in ("clip_length", "frame_stride", "num_clips")),
    ],
    ids=str,
)
def test_it_is_a_line(
    videogn: Callable, trained: Path, tmp_path: Path, artifact: tuple[onnx.ModelProto, dict[str, Any]], key: Sequence[str | int]
) -> None:
    model, described = artifact
    video = str(trained.parent / "motion/test/move_up/000.mp4")
    (entry,) = (entry for entry in model.metadata_props if entry.key == "videogn")
    refused = 0
    for value in BAD:
        damaged: Any = json.loads(json.dumps(described))
        inner = damaged
        for name in key[:-1]:
            inner = inner[name]
        inner[key[-1]] = value
        entry.value = json.dumps(damaged)
        onnx.save(model, tmp_path / "m.onnx")
        outcome = videogn("predict", str(tmp_path / "m.onnx"), video)
        assert outcome.status in (0, 1, 2), (value, outcome)
        assert "Traceback" not in outcome.err, (value, outcome.err)
        refused += outcome.status == 2
    assert refused >= 5
