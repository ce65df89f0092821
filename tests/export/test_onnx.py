"""The ONNX file as ONNX's own library sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from videogn.export import proof
from videogn.export.bundle import KEY, Bundle
from videogn.export.exporter import Exporter, Source
from videogn.export.onnx import open_file, read_bundle
from videogn.types import InputError


def operators(path: Path) -> set[str]:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return {node.op_type for node in model.graph.node}


@pytest.mark.turns
@pytest.mark.parametrize(("opset", "norm"), [(18, "InstanceNormalization"), (21, "GroupNormalization")])
def test_group_norm_by_opset(exporter: Callable[..., Exporter], source: Source, place: Path, opset: int, norm: str) -> None:
    found = proof.export(exporter("onnx", opset=opset), source, place / "m.onnx")
    assert {entry for entry in operators(place / "m.onnx") if entry.endswith("Normalization")} == {norm}
    assert [entry.version for entry in onnx.load(place / "m.onnx").opset_import] == [opset]
    assert found["top1_agreement"] == 1


def test_axes_are_named_and_the_bundle_is_inside(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    proof.export(exporter("onnx", dynamic=["batch", "height"], include_preprocessing=True), source, place / "m.onnx")
    session = onnxruntime.InferenceSession(place / "m.onnx")
    (given,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("clips", "tensor(uint8)", ["batch", 4, "height", 32, 3])
    assert (answer.name, answer.type, answer.shape) == ("scores", "tensor(float)", ["batch", 3])
    bundle = Bundle.loads(session.get_modelmeta().custom_metadata_map[KEY], "m.onnx")
    assert bundle == read_bundle(place / "m.onnx")
    assert bundle.classes == ("a", "b", "c")
    assert bundle.input["shape"] == [None, 4, None, 32, 3]
    assert bundle.input["axes"] == ["batch", "time", "height", "width", "colour"]
    assert bundle.input["is_uint8"]
    assert bundle.proof["compared"]
    with torch.inference_mode():
        expected = source.network(source.normalized(source.frames))
    assert np.abs(session.run(["scores"], {"clips": source.frames.numpy()})[0] - expected.numpy()).max() < 1e-4


def test_no_batch_norm_is_left(exporter: Callable[..., Exporter], batch_norm_source: Source, place: Path) -> None:
    proof.export(exporter("onnx"), batch_norm_source, place / "m.onnx")
    assert operators(place / "m.onnx") == {"Conv", "Relu", "Add", "ReduceMean", "Gemm"}


def test_convolutions_in_16_bits_and_norms_in_32(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    found = proof.export(exporter("onnx", precision="fp16"), source, place / "m.onnx")
    weights = {entry.name: entry.data_type for entry in onnx.load(place / "m.onnx").graph.initializer}
    model = onnx.load(place / "m.onnx")
    kinds = {node.op_type: {weights[name] for name in node.input if name in weights} for node in model.graph.node}
    assert kinds["Conv"] == {onnx.TensorProto.FLOAT16}
    assert onnx.TensorProto.FLOAT16 not in kinds["Mul"]  # gamma
    assert 1e-5 < found["largest_relative_difference"] < 0.02


@pytest.mark.parametrize("quantization", ["dynamic", "static"])
def test_8_bits(exporter: Callable[..., Exporter], source: Source, place: Path, quantization: str) -> None:
    found = proof.export(exporter("onnx", quantization=quantization, tolerance=0.5), source, place / "m.onnx")
    assert found["quantization"] == quantization
    assert ("ConvInteger" if quantization == "dynamic" else "DequantizeLinear") in operators(place / "m.onnx")
    # 8 bits round a value by up to 1/256 of its range; a network of 8 layers is within tens of those.
    assert 1e-4 < found["largest_relative_difference"] < 0.2


def test_an_opset_to_come(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    with pytest.raises(InputError, match=r"^export.opset=99: onnx [\d.]+, which is installed, has up to \d\d$"):
        proof.export(exporter("onnx", opset=99), source, place / "m.onnx")
    assert list(place.iterdir()) == []


def test_an_operator_that_the_opset_has_not(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    class Strange(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x).mean((2, 3, 4))

    with pytest.raises(
        InputError, match=r"^export: ONNX opset 18 cannot hold the network: No ONNX function found .*bessel"
    ) as error:
        proof.export(exporter("onnx"), replace(source, network=Strange()), place / "m.onnx")
    assert "\n" not in str(error.value)
    assert list(place.iterdir()) == []


def test_another_programs_file(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), tmp_path / "x.onnx")
    with pytest.raises(InputError, match="without videogn's labels and preprocessing"):
        read_bundle(tmp_path / "x.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    with pytest.raises(InputError, match="ONNX Runtime cannot load it"):
        open_file(tmp_path / "noise.onnx", None, False)
