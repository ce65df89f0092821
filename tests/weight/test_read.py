"""Files that are damaged, of another layout, or written to do harm."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from videogn.types import InputError
from videogn.weight.detectron import Detectron
from videogn.weight.groupnorm_reproduce import GroupNormReproduce
from videogn.weight.mmaction import Mmaction
from videogn.weight.nonlocal_net import NonlocalNet
from videogn.weight.pytorchvideo import Pytorchvideo
from videogn.weight.read import read_npz, read_pickle, read_torch, tensors
from videogn.weight.run import Run
from videogn.weight.slowfast import SlowFast
from videogn.weight.source import WeightSource
from videogn.weight.timm import Timm
from videogn.weight.torchvision import Torchvision

Write = Callable[[Path], None]
SOURCES = [Detectron, GroupNormReproduce, Mmaction, NonlocalNet, Pytorchvideo, SlowFast, Timm, Torchvision, Run]


@pytest.fixture(scope="module")
def model(shallow: Callable[..., nn.Module]) -> nn.Module:
    return shallow()


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


HARM = {
    "os.system": lambda mark: Call(os.system, f"touch '{mark}'"),
    "exec": lambda mark: Call(builtins.exec, f"open({str(mark)!r}, 'w').close()"),
    "mkdir": lambda mark: Call(os.mkdir, str(mark)),
}


# As they are called in a pickle.
NAMES = {"os.system": r"(posix|nt)\.system", "exec": r"(__builtin__|builtins)\.exec", "mkdir": r"(posix|nt)\.mkdir"}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("source", [Detectron, NonlocalNet, SlowFast])
def test_nothing_in_a_pickle_is_run(
    refuse: Callable, model: nn.Module, tmp_path: Path, source: type[WeightSource], harm: str
) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps({"blobs": {"conv1_w": np.zeros(3), "x": HARM[harm](mark)}}, protocol=2))
    message = refuse(source(), path, model)
    assert "which is no array; nothing in it was run" in message
    assert re.search(NAMES[harm], message)
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # it would have
    assert mark.exists()


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("source", [Torchvision, Run])
def test_nothing_in_a_torch_file_is_run(
    refuse: Callable, model: nn.Module, tmp_path: Path, source: type[WeightSource], harm: str, zipped: bool
) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "file.pth"
    content = {"state_dict": {"conv1.weight": torch.zeros(3)}, "x": HARM[harm](mark)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    message = refuse(source(), path, model)
    assert "nothing in it was run" in message
    assert not mark.exists()


def test_a_bare_pickle_is_no_torch_file(refuse: Callable, model: nn.Module, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "file.pth"
    path.write_bytes(pickle.dumps({"conv1.weight": HARM["os.system"](mark)}, protocol=2))
    assert "nothing in it was run" in refuse(Torchvision(), path, model)
    assert not mark.exists()


def test_objects_in_an_npz_are_not_unpickled(refuse: Callable, model: nn.Module, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "file.npz"
    np.savez(path, **{"conv0/W": np.array([HARM["os.system"](mark)], dtype=object)})  # pyright: ignore
    assert "nothing in it was run" in refuse(GroupNormReproduce(), path, model)
    assert not mark.exists()


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


# Each uses only names that an array needs, and not for an array.
MISUSE = {
    "a_codec": opcodes(b"c_codecs\nencode\n", text("uryyb"), text("rot13"), b"\x86R"),
    "a_codec_by_default": opcodes(b"c_codecs\nencode\n", text("hello"), b"\x85R"),
    "build_on_a_class": opcodes(b"cnumpy\nndarray\n", b"}", text("harm"), text("done"), b"s", b"b"),
    "build_on_a_dict_class": opcodes(b"ccollections\nOrderedDict\n", b"N}", text("update"), text("done"), b"s\x86", b"b"),
    "reconstruct_of_no_array": opcodes(
        b"cnumpy.core.multiarray\n_reconstruct\n", b"ccollections\nOrderedDict\n", b"K\x03\x85", b"U\x01b", b"\x87R"
    ),
    "object_scalar_of_raw_bytes": opcodes(
        b"cnumpy.core.multiarray\nscalar\n", b"cnumpy\ndtype\n", text("O"), b"\x85R", b"U\x08AAAAAAAA", b"\x86R"
    ),
    "more_bytes_than_the_shape": opcodes(
        *(b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n", b"K\x00\x85", b"U\x01b", b"\x87R"),
        *(b"(", b"K\x01", b"K\x64\x85", b"cnumpy\ndtype\n", text("f4"), b"\x85R", b"\x89", b"U\x04AAAA", b"tb"),
    ),
    "a_name_within_an_allowed_module": opcodes(b"cnumpy.core.multiarray\nfrombuffer\n"),
    "a_name_with_a_dot": opcodes(b"\x80\x04", text("numpy"), text("ndarray.tofile"), b"\x93"),
    "a_persistent_id": opcodes(text("7"), b"Q"),
    "an_old_class": opcodes(b"(ios\nsystem\n"),
}


@pytest.mark.filterwarnings("ignore:Unpickling a scalar with object dtype:DeprecationWarning")
@pytest.mark.parametrize("misuse", MISUSE)
def test_allowed_names_that_are_misused(refuse: Callable, model: nn.Module, tmp_path: Path, misuse: str) -> None:
    path = tmp_path / "file.pkl"
    path.write_bytes(MISUSE[misuse])
    message = refuse(Detectron(), path, model)
    if misuse == "a_codec":
        assert "it encodes to 'rot13'; nothing in it was run" in message
    assert not hasattr(np.ndarray, "harm")
    assert OrderedDict(a=1) == {"a": 1}
    assert callable(OrderedDict.update)
    # And the next file is read as ever.
    path.write_bytes(pickle.dumps({"a": np.arange(3.0)}, protocol=2))
    assert read_pickle(path)["a"].tolist() == [0, 1, 2]


def test_an_array_of_objects_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps({"objects": np.array([{}, None], dtype=object), "a": np.ones(2)}, protocol=2))
    assert list(tensors(read_pickle(path), path)) == ["a"]


def of_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"blobs": {"conv1_w": np.zeros((64, 3, 7, 7), np.float32)}}, protocol=2))


def of_torch(path: Path) -> None:
    torch.save({"state_dict": {"conv1.weight": torch.zeros(64, 3, 7, 7)}}, path)


def of_safetensors(path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)


def of_npz(path: Path) -> None:
    np.savez(path, **{"conv0/W": np.zeros((7, 7, 3, 64), np.float32)})  # pyright: ignore


KINDS: list[tuple[type[WeightSource], str, Write]] = [
    (Detectron, "file.pkl", of_pickle),
    (SlowFast, "file.pyth", of_torch),
    (Torchvision, "file.pth", of_torch),
    (Timm, "file.safetensors", of_safetensors),
    (GroupNormReproduce, "file.npz", of_npz),
    (Run, "last.ckpt", of_torch),
]


@pytest.mark.parametrize(("source", "name", "write"), KINDS, ids=[name for _, name, _ in KINDS])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_is_cut_off(
    refuse: Callable, model: nn.Module, tmp_path: Path, source: type[WeightSource], name: str, write: Write, share: float
) -> None:
    path = tmp_path / name
    write(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    message = refuse(source(), path, model)
    assert "file of arrays: " in message
    assert message.endswith("nothing in it was run. Give a file of this layout, whole")
    assert ("it is empty" in message) == (share == 0)


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_that_is_not_there(refuse: Callable, model: nn.Module, tmp_path: Path, source: type[WeightSource]) -> None:
    assert refuse(source(), tmp_path / "none.pth", model) == f"{tmp_path / 'none.pth'}: no such file; correct weight.path"
    assert refuse(source(), tmp_path, model) == f"{tmp_path}: no such file; correct weight.path"


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"a": 1}, {"state_dict": None}, torch.zeros(3), {"state_dict": {"a": "b"}}], ids=str
)
@pytest.mark.parametrize("source", [Mmaction, Pytorchvideo, SlowFast, Timm, Torchvision, GroupNormReproduce])
def test_a_torch_file_of_another_layout(
    refuse: Callable, model: nn.Module, tmp_path: Path, source: type[WeightSource], content: Any
) -> None:
    path = tmp_path / "file.pth"
    torch.save(content, path)
    message = refuse(source(), path, model)
    assert "is it of another layout?" in message or "give a checkpoint of" in message


@pytest.mark.parametrize("content", [[1, 2], {}, {"blobs": {"lr": 1.0}}, {"blobs": None}, {"blobs": {3: np.ones(3)}}], ids=str)
def test_a_pickle_of_another_layout(refuse: Callable, model: nn.Module, tmp_path: Path, content: Any) -> None:
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(content, protocol=2))
    message = refuse(Detectron(), path, model)
    assert "is it of another layout?" in message or "a pickle of Caffe2's blobs was expected" in message


def test_a_torchscript_archive(refuse: Callable, model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("file/data.pkl", b"\x80\x02}.")
        archive.writestr("file/constants.pkl", b"\x80\x02).")
        archive.writestr("file/version", b"3\n")
    refuse(Torchvision(), path, model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_values_that_are_not_finite(refuse: Callable, model: nn.Module, tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    path = tmp_path / "file.pth"
    weight = torch.zeros(64, 3, 7, 7, dtype=dtype)
    weight[3, 1, 2, 2] = value
    torch.save({"conv1.weight": weight}, path)
    message = refuse(Torchvision(), path, model)
    assert "conv1.weight holds a value that is not finite; the file is damaged, or its training failed" in message


@pytest.mark.parametrize("value", [torch.zeros(3, 3).to_sparse(), torch.empty(3, device="meta")], ids=["sparse", "meta"])
def test_tensors_that_are_no_plain_arrays_are_left(value: torch.Tensor, tmp_path: Path) -> None:
    found = tensors({"odd": value, "plain": torch.ones(2)}, tmp_path / "file.pth")
    assert list(found) == ["plain"]


def test_arrays_of_every_kind_keep_their_values(tmp_path: Path) -> None:
    """Byte orders, layouts in memory and widths of numbers."""
    plain = np.arange(6.0).reshape(2, 3)
    arrays: dict[str, np.ndarray] = {
        "big": plain.astype(">f4"),
        "columns": np.asfortranarray(plain),
        "half": plain.astype(np.float16),
        "long": plain.astype(np.longdouble),
        "whole": plain.astype(np.int64),
        "text": np.array(["a"]),
        "number": np.array(3.0),
    }
    found = tensors(arrays, tmp_path)
    assert set(found) == {"big", "columns", "half", "long", "whole"}
    for value in found.values():
        assert value.tolist() == plain.tolist()


def test_readers_keep_what_was_written(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, a=values)
    (tmp_path / "a.npz").write_bytes(buffer.getvalue())
    torch.save({"a": torch.from_numpy(values)}, tmp_path / "a.pth")
    save_file({"a": torch.from_numpy(values)}, tmp_path / "a.safetensors")
    for protocol in range(6):
        (tmp_path / f"{protocol}.pkl").write_bytes(pickle.dumps({"a": values}, protocol=protocol))
        if protocol < 5:  # which numpy writes by names that no published file has
            assert np.array_equal(read_pickle(tmp_path / f"{protocol}.pkl")["a"], values)
        else:
            with pytest.raises(InputError, match="which is no array"):
                read_pickle(tmp_path / f"{protocol}.pkl")
    assert np.array_equal(read_npz(tmp_path / "a.npz")["a"], values)
    for name in ("a.pth", "a.safetensors"):
        assert np.array_equal(read_torch(tmp_path / name)["a"].numpy(), values)
