"""Files that were made to fill the memory or to reach beyond their folder are refused in one line, before they do.

That none of them runs code: test_evaluate_predict_export.py, tests/weight/test_read.py and test_inert.py, tests/export.
"""

from __future__ import annotations

import json
import resource
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from videogn.dataset import text


def commands(path: Path) -> list[list[str]]:
    """Those that open a checkpoint."""
    return [["evaluate", f"checkpoint={path}"], ["predict", str(path), "x.mp4"], ["export", f"checkpoint={path}"]]


def test_a_checkpoint_that_unpacks_to_more_than_its_size(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    packed = tmp_path / "x.ckpt"
    with (
        zipfile.ZipFile(trained / "checkpoint/last.ckpt") as whole,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        for record in whole.infolist():
            size = record.file_size
            file.writestr(record.filename, bytes(size) if "/data/" in record.filename else whole.read(record))
    assert packed.stat().st_size < (trained / "checkpoint/last.ckpt").stat().st_size / 4
    for command in (*commands(packed), ["train", f"resume={packed}"]):
        assert "cannot be read as a checkpoint" in videogn(*command).refusal()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": [1, 1, 10**11]}, "give at most 1000 blocks a stage"),
        ({"depths": [1, 1, 1000]}, "its model configuration has many more layers than its "),
        ({"widths": [32, 64, 10**5 * 32]}, "its weights do not fit its model configuration: "),
    ],
    ids=["blocks", "layers", "channels"],
)
def test_a_checkpoint_that_describes_a_huge_network(
    videogn: Callable, trained: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    content = torch.load(trained / "checkpoint/last.ckpt", weights_only=True)
    content["videogn"]["config"]["model"].update(change)
    torch.save(content, tmp_path / "x.ckpt")
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for command in commands(tmp_path / "x.ckpt"):
        assert message in videogn(*command).refusal()
    assert time.monotonic() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024, "kilobytes: it has 3.2 million channels"


@pytest.mark.parametrize("place", ["beside", "../secret", "ABSOLUTE", "link"])
def test_a_graph_whose_weights_lie_outside_its_folder(videogn: Callable, tmp_path: Path, place: str) -> None:
    """ONNX Runtime refuses it. One whose weights lie beside it is read, and then refused for want of labels."""
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path / "folder"
    folder.mkdir()
    for file in (tmp_path / "secret", folder / "beside"):
        file.write_bytes(bytes(4))
    (folder / "link").symlink_to(tmp_path / "secret")
    weight = numpy_helper.from_array(torch.zeros(1).numpy(), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", str(tmp_path / "secret") if place == "ABSOLUTE" else place
    graph = helper.make_graph(
        [helper.make_node("Add", ["clips", "w"], ["scores"])],
        "graph",
        [helper.make_tensor_value_info("clips", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (folder / "x.onnx").write_bytes(model.SerializeToString())
    refusal = videogn("predict", str(folder / "x.onnx"), "x.mp4").refusal()
    assert ("without videogn's labels and preprocessing" in refusal) == (place == "beside")


def test_a_header_that_says_to_be_huge(videogn: Callable, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"videogn": {}}))
    (tmp_path / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    for command in commands(tmp_path):
        assert "damaged, or without videogn's configuration" in videogn(*command).refusal()


@pytest.mark.parametrize("key", ["dataset.path", "dataset.classes"])
def test_a_list_without_an_end(
    videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(text, "_MAX_BYTES", 2**21)
    shutil.copy(trained / "manifest.csv", tmp_path / "manifest.csv")
    places = {"dataset.path": f"{tmp_path}/manifest.csv", key: "/dev/zero"}
    words = [word for word in tiny if not word.startswith("dataset.")]
    refusal = videogn("train", *words, "dataset=manifest", *(f"{k}={v}" for k, v in places.items())).refusal()
    assert "/dev/zero: more than 2 MiB, which no " in refusal
