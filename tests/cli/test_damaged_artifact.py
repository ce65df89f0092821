"""What an artifact says of itself is damaged in one value: a line, and no traceback."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest

from videogn import memory_limit

# Nodes behind a graph's scores: kind, inputs, output.
_SUM = [
    ("ReduceMax", ["inner"], "one"),
    ("Expand", ["one", "number"], "many"),
    ("ReduceMax", ["many"], "most"),
    ("Add", ["inner", "most"], "scores"),
]
_RESHAPE = [("ReduceMax", ["inner", "axes"], "one"), ("Reshape", ["one", "number"], "scores")]

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


@pytest.mark.parametrize(
    ("status", "reason", "nodes", "constant"),
    [
        (
            1,
            "out of memory: one view of 4 x 32 x 32 on cpu: {path}: its runtime cannot allocate what the graph asks for",
            _SUM,
            2**29,
        ),
        (2, "{path}: for clips of 4 x 3 x 4 x 32 x 32 its runtime fails: ", _RESHAPE, 7),
        (
            2,
            "{path}: for clips of 4 x 3 x 4 x 32 x 32 it answers float32 4, and no scores of 10 classes; it is damaged",
            _RESHAPE,
            4,
        ),
    ],
    ids=["memory", "fails", "shape"],
)
def test_a_graph_that_does_not_answer_is_a_line(
    videogn: Callable,
    trained: Path,
    tmp_path: Path,
    artifact: tuple[onnx.ModelProto, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    reason: str,
    nodes: Sequence[tuple[str, list[str], str]],
    constant: int,
) -> None:
    """Nodes are added behind its scores; a constant says how many numbers they make of them."""
    monkeypatch.setattr(memory_limit, "available_bytes", lambda: 2**30)  # the sum is of 2 GiB
    before = resource.getrlimit(resource.RLIMIT_DATA)
    model = onnx.ModelProto.FromString(artifact[0].SerializeToString())
    for key, value in (("number", constant), ("axes", -1)):
        model.graph.initializer.append(onnx.helper.make_tensor(key, onnx.TensorProto.INT64, [1], [value]))
    for node in model.graph.node:
        node.output[:] = ["inner" if name == "scores" else name for name in node.output]
    model.graph.node.extend(onnx.helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    (entry,) = (entry for entry in model.metadata_props if entry.key == "videogn")
    entry.value = json.dumps(artifact[1])
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    outcome = videogn("predict", str(path), str(trained.parent / "motion/test/move_up/000.mp4"))
    assert outcome.status == status, outcome
    *_, last = outcome.err.splitlines()
    assert reason.format(path=path) in last, outcome
    assert "Traceback" not in outcome.err
    assert "[E:onnxruntime" not in outcome.err, "what it logs by itself"
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
