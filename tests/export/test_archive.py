"""A .pt2 that would make torch run what it holds is not opened."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from videogn.export.archive import check_archive
from videogn.export.torch_export import open_file
from videogn.types import InputError

Change = Callable[[dict[str, bytes]], None]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The entries of an honest file."""
    path = tmp_path_factory.mktemp("archive") / "m.pt2"
    network = nn.Sequential(nn.Conv3d(3, 4, 3, stride=2), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    shapes = ({0: Dim("batch", min=1), 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    program = torch.export.export(network, (torch.randn(2, 3, 8, 9, 9),), dynamic_shapes=shapes)
    program._guards_code = []
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def written(entries: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def entry(entries: dict[str, bytes], end: str) -> str:
    (name,) = (name for name in entries if name.endswith(end))
    return name


def graph(change: Callable[[Any], None]) -> Change:
    def changed(entries: dict[str, bytes]) -> None:
        name = entry(entries, "models/model.json")
        content = json.loads(entries[name])
        change(content)
        entries[name] = json.dumps(content).encode()

    return changed


def expression(text: str) -> Change:
    """In place of the first size of the graph."""

    def replace(node: Any) -> bool:
        if isinstance(node, dict):
            if "expr_str" in node:
                node["expr_str"] = text
                return True
            return any(replace(child) for child in node.values())
        return isinstance(node, list) and any(replace(child) for child in node)

    def change(content: Any) -> None:
        assert replace(content)

    return graph(change)


class Payload:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.sentinel,))


def test_an_honest_file_is_opened(archive: dict[str, bytes], tmp_path: Path) -> None:
    path = written(archive, tmp_path / "m.pt2")
    assert open_file(path, None, False)(torch.randn(1, 3, 12, 10, 9).numpy()).shape == (1, 2)


def test_what_the_check_is_for(archive: dict[str, bytes], tmp_path: Path) -> None:
    """torch itself evaluates a size as Python."""
    entries = dict(archive)
    expression(f"__import__('pathlib').Path({str(tmp_path / 'SENTINEL')!r}).touch() or 3")(entries)
    path = written(entries, tmp_path / "m.pt2")
    with pytest.raises(InputError, match=r"expr_str=.* is nothing that an export writes"):
        open_file(path, None, False)
    assert not (tmp_path / "SENTINEL").exists()
    with suppress(Exception):  # what it makes of the value does not matter
        torch.export.load(path)
    assert (tmp_path / "SENTINEL").exists()


@pytest.mark.parametrize(
    "text",
    [
        "().__class__.__bases__[0]",
        "Symbol('s0') if print(1) else 3",
        "Integer(eval('1'))",
        "lambda: 0",
        "Pow(Integer(9), Integer(999999999))",
        "Integer(99999999999999999999999999)",
        "Symbol('s0', positive=True)\n.x",
    ],
)
def test_sizes_that_are_no_sizes(archive: dict[str, bytes], tmp_path: Path, text: str) -> None:
    entries = dict(archive)
    expression(text)(entries)
    with pytest.raises(InputError, match="expr_str"):
        check_archive(written(entries, tmp_path / "m.pt2"), trust=False)


@pytest.mark.parametrize(
    "target",
    ["torch.load", "torch.hub.load", "torch.ops.load_library", "torch.ops.aten.add", "_operator.methodcaller", "#videogn"],
)
def test_operators_that_are_none(archive: dict[str, bytes], tmp_path: Path, target: str) -> None:
    def change(content: Any) -> None:
        content["graph_module"]["graph"]["nodes"][0]["target"] = target

    entries = dict(archive)
    graph(change)(entries)
    with pytest.raises(InputError, match=f"target='{target}'"):
        check_archive(written(entries, tmp_path / "m.pt2"), trust=False)


def test_checks_that_torch_would_run(archive: dict[str, bytes], tmp_path: Path) -> None:
    entries = dict(archive)
    graph(lambda content: content.update(guards_code=["print(1)"]))(entries)
    with pytest.raises(InputError, match="guards_code"):
        check_archive(written(entries, tmp_path / "m.pt2"), trust=False)


def test_pickles(archive: dict[str, bytes], tmp_path: Path) -> None:
    entries = dict(archive)
    buffer = io.BytesIO()
    torch.save(Payload(tmp_path / "SENTINEL"), buffer)
    entries[entry(entries, "sample_inputs/model.pt")] = buffer.getvalue()
    with pytest.raises(InputError, match="holds a pickle of more than tensors"):
        check_archive(written(entries, tmp_path / "m.pt2"), trust=False)
    entries = dict(archive)
    config = entry(entries, "model_weights_config.json")
    entries[config] = entries[config].replace(b'"use_pickle": false', b'"use_pickle": true', 1)
    assert entries[config] != archive[config]
    with pytest.raises(InputError, match="use_pickle"):
        check_archive(written(entries, tmp_path / "m.pt2"), trust=False)
    place = entry(archive, "sample_inputs/model.pt").replace("sample_inputs/model.pt", "constants/custom_obj_0")
    entries = {**archive, place: pickle.dumps(1)}
    with pytest.raises(InputError, match="custom_obj_0, which no export writes"):
        check_archive(written(entries, tmp_path / "m.pt2"), trust=False)
    assert not (tmp_path / "SENTINEL").exists()


def test_entries_out_of_place(archive: dict[str, bytes], tmp_path: Path) -> None:
    root = next(iter(archive)).partition("/")[0]
    for name, reason in (
        (f"{root}/models/other.bin", "which no export writes"),
        ("elsewhere/models/model.json", "several folders"),
        (f"{root}/../../evil", "which no export writes"),
        (f"{root}/data/aotinductor/model/x.so", "holds native code .*--trust"),
    ):
        with pytest.raises(InputError, match=reason):
            check_archive(written({**archive, name: b"{}"}, tmp_path / "m.pt2"), trust=False)
    path = written(archive, tmp_path / "twice.pt2")
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr(entry(archive, "models/model.json"), b"{}")
    with pytest.raises(InputError, match="are there twice"):
        check_archive(path, trust=False)


def test_trust_opens_all(archive: dict[str, bytes], tmp_path: Path) -> None:
    root = next(iter(archive)).partition("/")[0]
    check_archive(written({**archive, f"{root}/data/aotinductor/model/x.so": b""}, tmp_path / "m.pt2"), trust=True)


@pytest.mark.parametrize("content", [b"", b"noise", b"PK\x03\x04"])
def test_noise(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.pt2").write_bytes(content)
    with pytest.raises(InputError, match=r"not a \.pt2 of torch, or a damaged one"):
        open_file(tmp_path / "m.pt2", None, False)
    with pytest.raises(InputError, match=r"cannot load it|not a \.pt2"):
        open_file(tmp_path / "m.pt2", None, True)
