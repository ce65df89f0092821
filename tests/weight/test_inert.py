"""Checkpoints that hold objects of another program: their tensors are read, and nothing of the rest is run."""

from __future__ import annotations

import argparse
import collections
import datetime
import itertools
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from videogn.types import InputError
from videogn.weight import inert
from videogn.weight.inert import Inert, read_inert
from videogn.weight.mmaction import Mmaction
from videogn.weight.read import read_state, read_torch
from videogn.weight.timm import Timm
from videogn.weight.torchvision import Torchvision


class Attributes(dict):
    """A dictionary as configurations are."""


class Lines(list):
    """A list with attributes."""


class History:
    """As mmengine keeps a loss: arrays, and functions by name."""

    def __init__(self) -> None:
        self.values = np.array([1.0, 2.0])
        self.count = np.float64(3)
        self.functions = {"mean": History.mean}

    def mean(self) -> float:
        return 1.0


def lines() -> Lines:
    found = Lines("ab")
    found.name = "c"  # type: ignore[attr-defined]
    return found


OBJECTS: dict[str, Any] = {
    "namespace": argparse.Namespace(lr=0.1, device=torch.device("cuda")),
    "path": Path("/a"),
    "datetime": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "deque": collections.deque([1, 2]),
    "attributes": Attributes(a=Attributes(b=1)),
    "lines": lines(),
    "history": History(),
    "class": History,
    "array": np.arange(3),
    "objects": np.array([{}, None], dtype=object),
    "dtype": np.dtype("f4"),
    "random_state": np.random.RandomState(0).get_state(),
    "module": nn.Linear(2, 2),
    "sparse": torch.ones(2, 2).to_sparse(),
    "set": {Path("/a")},
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_beside_any_object_are_read(tmp_path: Path, name: str, protocol: int) -> None:
    values = torch.arange(6.0).reshape(2, 3)
    content = {"args": OBJECTS[name], "state_dict": {"a.weight": values}, name: [OBJECTS[name], {name: OBJECTS[name]}]}
    torch.save(content, tmp_path / "file.pth", pickle_protocol=protocol)
    found = read_state(tmp_path / "file.pth")
    assert list(found) == ["a.weight"]
    assert torch.equal(found["a.weight"], values)


def test_a_checkpoint_of_mmengine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its message_hub keeps objects of a module that is not installed here."""
    module = types.ModuleType("mmengine_of_another")
    monkeypatch.setitem(sys.modules, "mmengine_of_another", module)
    module.History = History  # type: ignore[attr-defined]
    monkeypatch.setattr(History, "__module__", "mmengine_of_another")
    monkeypatch.setattr(History.mean, "__module__", "mmengine_of_another")
    content = {"state_dict": {"backbone.conv1.conv.weight": torch.ones(2)}, "message_hub": {"log_scalars": {"loss": History()}}}
    torch.save(content, tmp_path / "epoch_1.pth")
    monkeypatch.delitem(sys.modules, "mmengine_of_another")
    assert list(Mmaction().read(tmp_path / "epoch_1.pth")) == ["backbone.conv1.conv.weight"]
    assert "mmengine_of_another" not in sys.modules


def odd_tensors() -> dict[str, Tensor]:
    base = torch.arange(24.0)
    dtypes = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    return {
        "part": base[3:7],
        "turned": base.reshape(4, 6).T,
        "shared": base,
        "expanded": torch.ones(1).expand(3, 4),
        "number": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(torch.ones(2)),
        "channels_last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "bool": torch.tensor([True, False]),
        **{str(dtype): base.to(dtype) for dtype in dtypes},
    }


def test_tensors_are_those_that_torch_reads(tmp_path: Path) -> None:
    torch.save({"model": odd_tensors(), "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}}, tmp_path / "file.pth")
    found, expected = read_inert(tmp_path / "file.pth"), torch.load(tmp_path / "file.pth", weights_only=True)
    assert list(found["model"]) == list(expected["model"])
    for name, value in expected["model"].items():
        mine = found["model"][name]
        assert (mine.dtype, mine.shape, mine.stride()) == (value.dtype, value.shape, value.stride()), name
        assert torch.equal(mine, value), name
    assert found["optimizer"]["state"][0]["step"] == 1


def test_a_negated_view_is_not_read_as_its_values(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(2, dtype=torch.complex64).conj().imag, "x": Path("/a")}, tmp_path / "file.pth")
    with pytest.raises(InputError, match=r"a\.weight is a torch\._utils\._rebuild_tensor_v2, which is not read"):
        read_state(tmp_path / "file.pth")


REMEDY = "if you trust it, write its tensors alone where it was made: python -c \"import torch; torch.save({}, 'weights.pth')\""
LOADED = "torch.load('FILE', weights_only=False)"


def follow(message: str, path: Path) -> None:
    """Run the command of a message beside the file."""
    command = message.split('"')[1].replace("FILE", str(path)).replace("weights.pth", str(path.with_name("weights.pth")))
    exec(command)


@pytest.mark.parametrize("key", [None, "model"])
def test_a_whole_network_is_refused_with_a_remedy(
    refuse: Callable, shallow: Callable[..., nn.Module], tmp_path: Path, key: str | None
) -> None:
    path = tmp_path / "file.pth"
    network = nn.Linear(2, 3)
    torch.save({key: network} if key else network, path)
    place = f"['{key}']" if key else ""
    message = refuse(Torchvision(), path, shallow())
    assert message == (
        f"{path}: holds a torch.nn.modules.linear.Linear where names and tensors were expected; "
        + REMEDY.format(LOADED + place + ".state_dict()")
    )
    follow(message, path)
    assert list(read_state(tmp_path / "weights.pth")) == ["weight", "bias"]


def test_an_object_in_the_place_of_a_tensor_is_named(refuse: Callable, shallow: Callable[..., nn.Module], tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save({"state_dict": {"conv1.weight": np.ones(3), "bn1.weight": torch.ones(3)}}, path)
    message = refuse(Timm(), path, shallow())
    assert message.startswith(f"{path}: conv1.weight is a numpy.")
    assert "multiarray._reconstruct, which is not read; if you trust it, write its tensors alone where it was made" in message
    follow(message, path)
    assert read_state(tmp_path / "weights.pth")["conv1.weight"].tolist() == [1, 1, 1]


def test_a_legacy_file_names_the_remedy(refuse: Callable, shallow: Callable[..., nn.Module], tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save({"args": argparse.Namespace(a=1), "model": {}}, path, _use_new_zipfile_serialization=False)
    message = refuse(Torchvision(), path, shallow())
    reason = "it names argparse.Namespace, which is no tensor; nothing in it was run; " + REMEDY.format(LOADED + "['state_dict']")
    assert message == f"{path}: cannot be read as a torch file of arrays: {reason}"


def archive(path: Path, program: bytes, **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", program)
        for key, values in records.items():
            file.writestr(f"archive/data/{key}", values)
        file.writestr("archive/version", b"3\n")
    return path


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1]


def storage(key: str = "a", kind: str = "FloatStorage", size: int = 4) -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(size) + b"tQ"


def tensor(of: bytes, offset: int = 0, size: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85") -> bytes:
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + of + number(offset) + size + stride + b"\x89NtR"


def file_of(value: bytes) -> bytes:
    """An object first: torch's own reader gives up there."""
    return b"\x80\x02}" + text("x") + b"cpathlib\nPosixPath\n)Rs" + text("a.weight") + value + b"s."


FORGED = {
    "behind_its_values": tensor(storage(), offset=1),
    "far_behind": tensor(storage(), offset=2**62),
    "before_its_values": tensor(storage(), offset=-1),
    "longer_than_its_values": tensor(storage(), size=b"K\x05\x85"),
    "by_large_steps": tensor(storage(), stride=b"K\x02\x85"),
    "backwards": tensor(storage(), stride=number(-1) + b"\x85"),
    "of_a_negative_length": tensor(storage(), size=number(-4) + b"\x85"),
    "of_more_values_than_there_are": tensor(storage(size=5), size=b"K\x05\x85"),
    "of_fewer_values_than_there_are": tensor(storage(size=3), size=b"K\x03\x85"),
    "of_another_width": tensor(storage(kind="DoubleStorage")),
    "of_no_record": tensor(storage(key="b")),
    "of_another_place": tensor(storage(key="../version", size=0)),
    "of_more_sizes_than_steps": tensor(storage(), size=b"K\x02K\x02\x86"),
    "of_text": tensor(storage(), size=text("ab")),
    "of_halves": tensor(storage(), size=b"G" + bytes(8) + b"\x85"),
    "of_no_values": tensor(b"N"),
    "of_an_object": tensor(b"cpathlib\nPosixPath\n)R"),
    "of_a_storage_made_by_hand": tensor(b"ctorch\nFloatStorage\n"),
    "called_with_nothing": b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    "made_with_nothing": b"ctorch._utils\n_rebuild_tensor_v2\n)\x81",
    "no_storage": b"(" + text("module") + b"cos\nsystem\n" + text("a") + text("cpu") + b"K\x04tQ",
    "a_text_for_a_storage": text("storage") + b"Q",
}


@pytest.mark.turns
@pytest.mark.parametrize("forged", FORGED)
def test_no_tensor_reaches_beyond_its_values(
    refuse: Callable, shallow: Callable[..., nn.Module], tmp_path: Path, forged: str
) -> None:
    path = archive(tmp_path / "file.pth", file_of(FORGED[forged]), a=bytes(16))
    message = refuse(Torchvision(), path, shallow())
    assert "; nothing in it was run; give a file" in message or "a.weight is a torch" in message, message


@given(
    size=st.lists(st.integers(0, 5), max_size=3),
    stride=st.lists(st.integers(-1, 8), max_size=3),
    offset=st.integers(-1, 30),
    count=st.integers(0, 40),
)
@settings(deadline=None, max_examples=100)
def test_a_view_is_what_its_positions_say_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, size: list[int], stride: list[int], offset: int, count: int
) -> None:
    sizes, strides = (b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (size, stride))
    values = np.arange(count, dtype=np.float32)
    program = file_of(tensor(storage(size=count), offset, sizes, strides))
    path = archive(tmp_path_factory.getbasetemp() / "view.pth", program, a=values.tobytes())
    possible = len(size) == len(stride) and min([offset, *stride]) >= 0
    indices = itertools.product(*map(range, size))
    positions = [offset + sum(i * step for i, step in zip(index, stride, strict=False)) for index in indices]
    if possible and max(positions, default=-1) < count:
        assert read_inert(path)["a.weight"].flatten().tolist() == positions
        assert list(read_inert(path)["a.weight"].shape) == size
    else:
        with pytest.raises(pickle.UnpicklingError):
            read_inert(path)


# Pairs of a class that a file reaches, and what it tries to do to it.
REACHED = {
    "object": b"cpathlib\nPosixPath\n",
    "dictionary": b"ccollections\nOrderedDict\n",
    "default_dictionary": b"ccollections\ndefaultdict\n",
    "tensor": b"ctorch._utils\n_rebuild_tensor_v2\n",
    "parameter": b"ctorch._utils\n_rebuild_parameter\n",
    "storage": b"ctorch\nFloatStorage\n",
}
CHANGES = {
    "a_state": b"}" + text("update") + b"Nsb",
    "slots": b"N}" + text("update") + b"Ns" + text("find_class") + b"Ns" + b"\x86b",
    "an_item": text("update") + b"Ns",
    "an_append": b"Na",
    "a_call": b")R}" + text("update") + b"Nsb",
    "a_call_of_what_it_made": b")R)R",
    "slots_of_what_it_made": b")RN}" + text("values") + b"Ns\x86b",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("reached", REACHED)
def test_a_file_leaves_nothing_behind(tmp_path: Path, reached: str, change: str) -> None:
    torch.save({"x": Path("/a"), "state_dict": odd_tensors()}, tmp_path / "good.pth")
    before = {name: dict(vars(item)) for name, item in vars(inert).items() if isinstance(item, type)}
    path = archive(tmp_path / "file.pth", file_of(REACHED[reached] + CHANGES[change]))
    try:
        content = read_torch(path)
    except InputError as error:
        assert "nothing in it was run" in str(error)  # noqa: PT017
    else:
        assert set(content) == {"a.weight", "x"}
    assert {name: dict(vars(item)) for name, item in vars(inert).items() if isinstance(item, type)} == before
    assert len(read_state(tmp_path / "good.pth")) == len(odd_tensors())


def test_attributes_of_a_dictionary_do_not_hide_its_methods(tmp_path: Path) -> None:
    """torch lets a file set them."""
    program = b"\x80\x02ccollections\nOrderedDict\n)R" + text("a.weight") + tensor(storage())
    attributes = b"}" + b"".join(text(name) + b"K\x03s" for name in ("items", "keys", "__iter__")) + b"b."
    path = archive(tmp_path / "file.pth", program + b"s" + attributes, a=bytes(16))
    assert list(read_state(path)) == ["a.weight"]


def test_what_is_no_tensor_is_inert_and_known_by_its_name(tmp_path: Path) -> None:
    torch.save({"x": Path("/a"), "y": History.mean}, tmp_path / "file.pth")
    content = read_torch(tmp_path / "file.pth")
    assert isinstance(content["x"], Inert)
    assert content["x"].stands_for == f"pathlib.{type(Path('/a')).__name__}"
    assert type(content["y"]).__mro__[1:] == (Inert, object)


def test_an_archive_that_would_fill_the_memory_is_not_unpacked(
    refuse: Callable, shallow: Callable[..., nn.Module], tmp_path: Path
) -> None:
    path = tmp_path / "file.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", file_of(tensor(storage(size=2**20), size=b"K\x01\x85")))
        file.writestr("archive/data/a", bytes(2**22))
        file.writestr("archive/version", b"3\n")
    assert "its archive unpacks to more than its size; nothing" in refuse(Torchvision(), path, shallow())


def test_another_byte_order_is_refused(refuse: Callable, shallow: Callable[..., nn.Module], tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", file_of(tensor(storage())))
        file.writestr("archive/byteorder", {"little": "big", "big": "little"}[sys.byteorder])
        file.writestr("archive/data/a", bytes(16))
        file.writestr("archive/version", b"3\n")
    assert "another byte order" in refuse(Torchvision(), path, shallow())
