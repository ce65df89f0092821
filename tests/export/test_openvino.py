"""OpenVINO's two files as its own library reads them."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from videogn.export import proof
from videogn.export.exporter import Exporter, Source
from videogn.types import InputError

openvino = pytest.importorskip("openvino", reason="pip install 'videogn[openvino]'")


def test_openvino_reads_it_alone(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    from videogn.export.openvino import read_bundle

    found = proof.export(exporter("openvino", dynamic=["batch", "time"]), source, place / "m.xml")
    assert sorted(path.name for path in place.iterdir()) == ["m.bin", "m.xml", "m.xml.json"]
    model = openvino.Core().read_model(place / "m.xml")
    assert str(model.input("clips").partial_shape) == "[?,3,?,32,32]"
    assert model.output("scores").partial_shape.rank.get_length() == 2
    assert read_bundle(place / "m.xml").proof == found
    x = source.normalized(source.frames[:2, :3])
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.inference_mode():
        assert np.abs(compiled(x.numpy())[0] - source.network(x).numpy()).max() < 1e-4


@pytest.mark.turns
def test_weights_in_16_and_8_bits(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    sizes = {}
    callers, nncf = logging.NullHandler(), logging.getLogger("nncf")
    nncf.addHandler(callers)
    for name, values in {
        "fp32": {},
        "fp16": {"precision": "fp16"},
        "dynamic": {"quantization": "dynamic", "tolerance": 0.5},
        "static": {"quantization": "static", "tolerance": 0.5},
    }.items():
        found = proof.export(exporter("openvino", **values), source, place / "m.xml")
        sizes[name] = (place / "m.bin").stat().st_size
        assert found["largest_relative_difference"] < (0.2 if "quantization" in values else 0.02)
        assert ("validation" in found) == ("quantization" in values)
    nncf.removeHandler(callers)
    assert callers.level == logging.NOTSET
    assert sizes["fp16"] < 0.55 * sizes["fp32"]
    assert sizes["dynamic"] < 0.3 * sizes["fp32"]
    assert sizes["static"] < 0.3 * sizes["fp32"]


def test_a_file_that_lost_its_weights(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    from videogn.export.openvino import open_file

    proof.export(exporter("openvino"), source, place / "m.xml")
    (place / "m.bin").unlink()
    with pytest.raises(InputError, match=r"m\.bin, which holds its weights, does not lie beside it"):
        open_file(place / "m.xml", None, False)
    (place / "m.bin").touch()
    (place / "m.xml").write_text("noise")
    with pytest.raises(InputError, match=r"OpenVINO cannot load it: ") as error:
        open_file(place / "m.xml", None, False)
    assert "\n" not in str(error.value)


def test_an_operator_that_it_has_not(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    class Strange(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x).mean((2, 3, 4))

    root = logging.getLogger()
    before = root.level, root.filters[:], root.handlers[:]
    with pytest.raises(InputError, match=r"^export: OpenVINO cannot hold the network: No conversion rule .*bessel") as error:
        proof.export(exporter("openvino"), replace(source, network=Strange()), place / "m.xml")
    assert (root.level, root.filters, root.handlers) == before
    assert "\n" not in str(error.value)
    assert list(place.iterdir()) == []


def test_bf16_is_the_runtimes_choice(exporter: Callable[..., Exporter]) -> None:
    with pytest.raises(InputError, match=r"export\.precision=bf16: an OpenVINO file holds fp32 or fp16"):
        exporter("openvino", precision="bf16")


@pytest.mark.parametrize(("package", "values"), [("openvino", {}), ("nncf", {"quantization": "static"})])
def test_without_the_extra(
    exporter: Callable[..., Exporter], monkeypatch: pytest.MonkeyPatch, package: str, values: dict[str, str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest))
    monkeypatch.delitem(sys.modules, package, raising=False)
    with pytest.raises(InputError, match=rf"{package} is not installed; pip install 'videogn\[openvino\]'"):
        exporter("openvino", **values)
