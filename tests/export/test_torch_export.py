"""The .pt2 as torch alone reads it."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from videogn.export import proof
from videogn.export.bundle import Bundle
from videogn.export.exporter import Exporter, Source
from videogn.export.torch_export import is_compiled, open_file, read_bundle
from videogn.types import InputError


@pytest.mark.turns
def test_torch_reads_it_alone(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    export = exporter("torch_export", dynamic=["batch", "time", "height", "width"])
    found = proof.export(export, source, place / "m.pt2")
    extra = {"videogn": ""}
    network = torch.export.load(place / "m.pt2", extra_files=extra).module()
    assert Bundle.loads(extra["videogn"], "m.pt2") == read_bundle(place / "m.pt2")
    assert read_bundle(place / "m.pt2").proof == found
    # Sizes that are no multiple of the strides, with the sizes that torch wrote checked.
    for frames in (source.frames[:1], source.frames[:3, :3, :29, :17]):
        x = source.normalized(frames)
        with torch.inference_mode():
            torch.testing.assert_close(network(x), source.network(x), atol=1e-5, rtol=0)
    assert not is_compiled(place / "m.pt2")


def test_it_holds_no_path_of_this_machine(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    proof.export(exporter("torch_export"), source, place / "m.pt2")
    content = (place / "m.pt2").read_bytes()  # torch does not compress
    assert str(Path(torch.__file__).parents[1]).encode() not in content
    assert str(Path(__file__).parents[2]).encode() not in content
    assert str(place).encode() not in content


@pytest.mark.turns
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler: apt install g++")
def test_native_code_is_opened_only_by_who_trusts_it(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    found = proof.export(exporter("torch_export", aot_inductor=True), source, place / "m.pt2")
    assert found["runtime"] == "AOTInductor"
    assert is_compiled(place / "m.pt2")
    with pytest.raises(InputError, match=r"a \.pt2 is a program: .* give --trust \(from Python: trust=True\)"):
        open_file(place / "m.pt2", None, False)
    scores = open_file(place / "m.pt2", None, True)(source.normalized(source.frames).numpy())
    with torch.inference_mode():
        expected = source.network(source.normalized(source.frames))
    torch.testing.assert_close(torch.from_numpy(scores), expected, atol=1e-4, rtol=0)
    assert read_bundle(place / "m.pt2").proof == found


def test_without_a_compiler(exporter: Callable[..., Exporter], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler, and there is no no-such-compiler"):
        exporter("torch_export", aot_inductor=True)


@pytest.mark.turns
def test_a_16_bit_graph(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    found = {p: proof.export(exporter("torch_export", precision=p), source, place / "m.pt2") for p in ("fp32", "bf16")}
    sizes = {precision: entry["bytes"] for precision, entry in found.items()}
    assert sizes["bf16"] < 0.6 * sizes["fp32"]
    assert (
        found["fp32"]["largest_relative_difference"] < 1e-5 < 1e-4 < found["bf16"]["largest_relative_difference"]
    )  # 24 and 8 bits


def test_batch_norm_stays_where_it_is_not_to_be_folded(exporter: Callable[..., Exporter], batch_norm_source: Source) -> None:
    for fold in (True, False):
        program = exporter("torch_export", fold_batch_norm=fold).program(batch_norm_source, "fp32")  # pyright: ignore
        assert any("batch_norm" in str(node.target) for node in program.graph.nodes) != fold


def test_what_trust_is_for(exporter: Callable[..., Exporter], source: Source, place: Path) -> None:
    """torch evaluates a size that the file holds as Python."""
    export = exporter("torch_export")
    export.write(source, place / "m.pt2")
    with zipfile.ZipFile(place / "m.pt2") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (graph,) = (name for name in entries if name.endswith("models/model.json"))
    sentinel = place.parent / "SENTINEL"
    code = f"__import__('pathlib').Path('{sentinel}').touch() or 3"
    entries[graph] = re.sub(rb'"expr_str": "[^"]*"', b'"expr_str": ' + json.dumps(code).encode(), entries[graph], count=1)
    with zipfile.ZipFile(place / "hostile.pt2", "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="give --trust"):
        open_file(place / "hostile.pt2", None, False)
    assert not sentinel.exists()
    with suppress(InputError):  # what torch makes of the value does not matter
        open_file(place / "hostile.pt2", None, True)
    assert sentinel.exists()


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for content in (b"", b"noise", b"PK\x03\x04"):
        (tmp_path / "m.pt2").write_bytes(content)
        with pytest.raises(InputError, match=r"not a \.pt2 of torch, or a damaged one"):
            read_bundle(tmp_path / "m.pt2")
        with pytest.raises(InputError, match="cannot load it"):
            open_file(tmp_path / "m.pt2", None, True)
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("m/version", "3")
    with pytest.raises(InputError, match="without videogn's labels"):
        read_bundle(tmp_path / "m.pt2")
