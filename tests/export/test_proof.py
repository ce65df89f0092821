"""An artifact gets its name only if it agrees, and says how well."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from videogn.export import latency, proof
from videogn.export.bundle import Bundle
from videogn.export.exporter import Exporter, Source
from videogn.types import Findings, InputError


def test_the_proof_is_in_the_file_and_beside_it(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    found = proof.export(exporter("onnx", dynamic=["batch", "time", "height", "width"]), source, place / "m.onnx")
    assert sorted(path.name for path in place.iterdir()) == ["m.onnx", "m.onnx.json"]
    assert json.loads((place / "m.onnx.json").read_text(encoding="utf-8"))["proof"] == found
    clips = [entry["clip"] for entry in found["compared"]]
    assert {tuple(clip) for clip in clips} == {(4, 32, 32), (2, 32, 32), (8, 32, 32), (4, 24, 24), (4, 40, 40)}
    assert {entry["batch"] for entry in found["compared"]} == {1, 4, 6}
    assert found["num_clips"] == 6
    assert 0 < found["largest_relative_difference"] < 1e-5  # sums in another order, not the same code
    assert found["bytes"] > 4 * sum(weight.numel() for weight in source.weights.values())


def test_a_network_that_differs_is_not_written(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    """The graph is of a network whose head was moved by 1% of the largest score."""
    (place / "m.onnx").write_bytes(b"of an export that succeeded, before")
    (place / "m.onnx.json").write_text("{}")
    other = replace(source, network=_moved(source))
    export = exporter("onnx")
    written = export.write
    export.write = lambda given, path: written(other, path)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(Findings, match=r"m\.onnx: not written: ONNX Runtime \S+ differs from eager by 0\.0\d+ of the largest"):
        proof.export(export, source, place / "m.onnx")
    assert list(place.iterdir()) == []


def _moved(source: Source) -> torch.nn.Module:
    import copy

    network = copy.deepcopy(source.network)
    with torch.no_grad():
        network.head.bias[0] += 0.01 * float(network(source.normalized(source.frames)).abs().max())  # pyright: ignore
    return network


def test_what_cannot_be_written_leaves_what_was_there(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    (place / "m.onnx").write_bytes(b"before")
    export = exporter("onnx")
    export.write = lambda source, path: path.write_bytes(b"noise")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputError, match=r"^m\.onnx: ONNX Runtime cannot load it: "):
        proof.export(export, source, place / "m.onnx")
    assert [path.name for path in place.iterdir()] == ["m.onnx"]
    assert (place / "m.onnx").read_bytes() == b"before"


def test_a_seal_that_changes_an_answer_is_found(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    other = replace(source, network=_moved(source))
    export = exporter("onnx")
    sealed = export.seal

    def seal(path: Path, bundle: Bundle) -> None:
        export.write(other, path)
        sealed(path, bundle)

    export.seal = seal  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(Findings, match="not written: it answers otherwise once its bundle is inside"):
        proof.export(export, source, place / "m.onnx")
    assert list(place.iterdir()) == []


@pytest.mark.turns
def test_8_bits_that_lose_answers_are_not_written(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    found = proof.export(exporter("onnx", quantization="dynamic"), source, place / "m.onnx")
    assert found["validation"] == {"num_videos": 6, "top1_eager": 1.0, "top1": 1.0, "allowed_loss": 0.05}
    assert found["largest_relative_difference"] > 1e-4  # it is in 8 bits
    assert found["bytes"] < 0.3 * 4 * sum(weight.numel() for weight in source.weights.values())
    # Labels that the network gives and 8 bits do not: those of a network that differs.
    export = exporter("onnx", quantization="dynamic")
    written = export.write
    with torch.inference_mode():
        label = int(source.network(source.normalized(source.frames)).argmax(1)[0])
    other = replace(source, network=_without(source, label))
    export.write = lambda given, path: written(other, path)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(Findings, match=r"in 8 bits top-1 falls from 100\.0% to \d+\.\d% on the 6 videos of split val, 5\.0% are"):
        proof.export(export, source, place / "m.onnx")
    assert list(place.iterdir()) == []


def _without(source: Source, label: int) -> torch.nn.Module:
    import copy

    network = copy.deepcopy(source.network)
    with torch.no_grad():
        network.head.bias[label] -= 100  # pyright: ignore
    return network


def test_latency_is_measured_in_turn_and_with_its_memory(
    exporter: Callable[..., Exporter], source: Source, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "MAX_RUNS", 3)
    monkeypatch.setenv("PYTHONPATH", os.fspath(Path(__file__).parent))
    ways = {"eager": ("openers.doubles", place)}
    found = proof.export(exporter("onnx", latency=["eager"]), replace(source, ways=ways), place / "m.onnx")["latency"]
    assert [(entry["way"], entry["threads"], entry["batch"]) for entry in found] == [
        (way, threads, batch) for threads in (1, 2) for batch in (1, 8) for way in ("artifact", "eager")
    ]
    for entry in found:
        assert 0 < entry["low"] <= entry["milliseconds"] <= entry["high"]
        assert entry["runs"] == 3
        assert 2**24 < entry["peak_bytes"] < 2**31


def test_a_fixed_batch_is_run_whole(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    found = proof.export(exporter("onnx", dynamic=[], batch_size=4), source, place / "m.onnx")
    assert [entry["batch"] for entry in found["compared"]] == [4]
    assert json.loads((place / "m.onnx.json").read_text())["input"]["shape"] == [4, 3, 4, 32, 32]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"dynamic": ["batch", "frames"]}, "export.dynamic: frames: use some of batch, time, height, width"),
        ({"dynamic": "batch"}, "export.dynamic=batch: give a list"),
        ({"dynamic": None}, "export.dynamic=None: give a list"),
        ({"batch_size": 0}, "export.batch_size=0: give 1 or more"),
        ({"batch_size": 2}, "export.batch_size=2: is of a fixed batch, and batch is in export.dynamic"),
        ({"precision": "int4"}, "export.precision=int4: use one of fp32, fp16, bf16"),
        ({"num_clips": 0}, "export.num_clips=0"),
        ({"tolerance": -1.0}, "export.tolerance=-1.0"),
        ({"latency": ["fast"]}, "export.latency: fast: use eager, compile, or null"),
        ({"opset": 17}, "export.opset=17: the exporter writes 18 and later"),
        ({"quantization": "int8"}, "export.quantization=int8: use one of none, dynamic, static"),
        ({"quantization": "static", "precision": "fp16"}, "export.precision=fp16: 8 bits are made from fp32"),
        ({"num_calibration_clips": 0, "quantization": "static"}, "export.num_calibration_clips=0"),
    ],
)
def test_values_that_none_takes(exporter: Callable[..., Exporter], values: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError) as error:
        exporter("onnx", **values)
    assert str(error.value).startswith(reason)


def test_sizes_are_tried_where_they_are_free(exporter: Callable[..., Exporter]) -> None:
    frames = torch.arange(2 * 4 * 8 * 8 * 3, dtype=torch.int32).reshape(2, 4, 8, 8, 3).to(torch.uint8)
    found = list(proof.variants(exporter("onnx", dynamic=["width"]), frames))
    assert [tuple(clip.shape[1:4]) for clip in found] == [(4, 8, 8), (4, 8, 6), (4, 8, 10)]
    assert np.array_equal(found[2][:, :, :, 8], frames[:, :, :, 7])  # mirrored at the edge


@pytest.mark.turns
@pytest.mark.parametrize("quantization", ["none", "dynamic"])
def test_scores_that_are_no_numbers_or_far_off_pass_in_no_shape(
    exporter: Callable[..., Exporter], source: Source, place: Path, monkeypatch: pytest.MonkeyPatch, quantization: str
) -> None:
    """An artifact that is right for one clip at a time, and for more answers otherwise."""
    honest = proof.Runtime.scores
    for wrong in (float("nan"), 1000.0):

        def scores(self: proof.Runtime, clips: np.ndarray, batch: int, wrong: float = wrong) -> np.ndarray:
            return honest(self, clips, batch) * (1 if batch == 1 else wrong)

        monkeypatch.setattr(proof.Runtime, "scores", scores)
        with pytest.raises(Findings, match=r"differs from eager by (inf|\d{3}|1(\.\d+)?e\+03) of the largest score"):
            proof.export(exporter("onnx", quantization=quantization), source, place / "m.onnx")
        assert list(place.iterdir()) == []


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_static_8_bits_at_a_fixed_batch(exporter: Callable[..., Exporter], source: Source, place: Path, format: str) -> None:
    if format == "openvino":
        pytest.importorskip("openvino", reason="pip install 'videogn[openvino]'")
    export = exporter(format, quantization="static", dynamic=[], batch_size=4, tolerance=1.0)
    found = proof.export(export, source, place / f"m{export.suffix}")
    assert found["validation"]["num_videos"] == 6


def test_networks_that_give_no_scores(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    class Silent(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0 * x.mean((2, 3, 4))

    class Talkative(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.mean((2, 3, 4)), x

    for network, reason in ((Silent(), "gives no scores but zeros"), (Talkative(), "gives tuple; it must give scores")):
        with pytest.raises(InputError, match=reason):
            proof.export(exporter("onnx"), replace(source, network=network), place / "m.onnx")
    assert list(place.iterdir()) == []


def test_all_files_of_an_older_artifact_go(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    pytest.importorskip("openvino", reason="pip install 'videogn[openvino]'")
    for name in ("m.xml", "m.bin", "m.xml.json", "other.bin"):
        (place / name).touch()
    with pytest.raises(Findings):
        proof.export(exporter("openvino", tolerance=1e-15), source, place / "m.xml")
    assert [path.name for path in place.iterdir()] == ["other.bin"]
