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
from videogn.weight.read import State, read_npz, read_pickle, read_torch, tensors
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
NAMES = {"os.system": r"(posix|nt)\.system", "exec": r"(__builtin__\.|builtins\.)?exec", "mkdir": r"(posix|nt)\.mkdir"}


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
    if not zipped:
        assert re.search(
            rf"names ({NAMES[harm]}), which is no tensor; nothing in it was run; if you trust it, write its", message
        )
    elif source is Torchvision:  # the tensor was read, and is not one of this model
        assert "its shape 3 does not fit 64 x 3 x 1 x 7 x 7" in message
    assert not mark.exists()
    torch.load(path, weights_only=False)  # it would have
    assert mark.exists()


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
    assert message.endswith("nothing in it was run; give a file of this layout, whole")
    assert ("it is empty" in message) == (share == 0)


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_that_is_not_there(refuse: Callable, model: nn.Module, tmp_path: Path, source: type[WeightSource]) -> None:
    assert refuse(source(), tmp_path / "none.pth", model) == f"{tmp_path / 'none.pth'}: no such file; correct weight.path"
    assert refuse(source(), tmp_path, model) == f"{tmp_path}: a folder; give the file in it as weight.path"


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


def test_a_value_too_large_for_the_model(refuse: Callable, model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    weight = torch.zeros(64, 3, 7, 7, dtype=torch.float64)
    weight[3, 1, 2, 2] = 1e300
    torch.save({"conv1.weight": weight}, path)
    assert "conv1.weight holds a value that torch.float32 cannot" in refuse(Torchvision(strict=False), path, model)


def test_arrays_of_every_kind_keep_their_values(tmp_path: Path) -> None:
    """Byte orders, layouts in memory and widths of numbers."""
    plain = np.arange(6.0).reshape(2, 3)
    arrays: dict[str, np.ndarray] = {
        "big": plain.astype(">f4"),
        "columns": np.asfortranarray(plain),
        "half": plain.astype(np.float16),
        "long": plain.astype(np.longdouble),
        "whole": plain.astype(np.int64),
        "complex": plain.astype(np.clongdouble),
        "text": np.array(["a"]),
        "number": np.array(3.0),
    }
    found = tensors(arrays, tmp_path)
    assert set(found) == {"big", "columns", "half", "long", "whole", "complex"}
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


@pytest.mark.parametrize(
    "program",
    [
        b"cnumpy\nndarray\n(I1\nVO\nc_codecs\nencode\n(VAAAAAAAA\nVlatin1\ntRtR.",  # objects at an address of the file's choice
        b"cnumpy\nndarray\n(I1073741824\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(VO8\nI00\nI01\ntRc_codecs\nencode\n(VAAAAAAAA\nVlatin1\ntRtR.",
        b"cnumpy\ndtype\n(VV8\nI00\nI01\ntR.",
    ],
    ids=["objects", "memory", "object", "void"],
)
@pytest.mark.parametrize("source", [Detectron, Torchvision])
def test_arrays_are_not_built_from_memory_that_a_file_names(
    refuse: Callable, model: nn.Module, tmp_path: Path, source: type[WeightSource], program: bytes
) -> None:
    path = tmp_path / "file.pkl"
    path.write_bytes(program)
    if source is Torchvision:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", program)
            archive.writestr("archive/version", b"3\n")
    message = refuse(source(), path, model)
    assert "cannot be read as a" in message or "where names and tensors were expected; if you trust it" in message


@pytest.mark.parametrize("source", [Torchvision, Timm])
@pytest.mark.parametrize("prefix", ["", "module.", "module.module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("key", ["state_dict", "model_state", "model", "state_dict_ema", "model_ema", None])
def test_a_checkpoint_of_the_training_scripts(tmp_path: Path, source: type[WeightSource], key: str | None, prefix: str) -> None:
    """As trainings nest the weights, and as DataParallel, AveragedModel and torch.compile name them."""
    state = {prefix + "conv1.weight": torch.ones(2), prefix + "bn1.weight": torch.ones(3), "n_averaged": torch.tensor(3)}
    torch.save({key: state, "epoch": 3, "optimizer": {}} if key else state, tmp_path / "file.pth")
    found = source().read(tmp_path / "file.pth")
    assert sorted(found) == ["bn1.weight", "conv1.weight", "n_averaged"]
    assert isinstance(found, State)
    of_means = "the weights are the means over steps, {}: the file holds no others"
    assert found.note == (of_means.format(key) if key in ("state_dict_ema", "model_ema") else "")


def test_a_name_that_only_begins_like_a_wrapper_stays(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(2), "other.a": torch.ones(2)}, tmp_path / "file.pth")
    assert list(Torchvision().read(tmp_path / "file.pth")) == ["module.a", "other.a"]


def test_the_weights_come_before_their_means(tmp_path: Path) -> None:
    for first in ("state_dict", "model"):
        content = {"model_ema": {"a.weight": torch.zeros(2)}, "state_dict_ema": {}, first: {"a.weight": torch.ones(2)}}
        other = {"model": "resnet50"} if first == "state_dict" else {"state_dict": None}
        torch.save(content | other, tmp_path / "file.pth")
        found = Timm().read(tmp_path / "file.pth")
        assert found["a.weight"].tolist() == [1, 1]
        assert isinstance(found, State)
        assert not found.note


@pytest.mark.parametrize(
    ("source", "name", "write"),
    [
        (Detectron, "A.PKL", of_pickle),
        (SlowFast, "A.PKL", of_pickle),
        (Timm, "A.SAFETENSORS", of_safetensors),
        (GroupNormReproduce, "A.NPZ", of_npz),
    ],
    ids=["detectron", "slowfast", "safetensors", "npz"],
)
def test_the_case_of_a_suffix_does_not_matter(tmp_path: Path, source: type[WeightSource], name: str, write: Write) -> None:
    written = tmp_path / name.lower()
    write(written)
    written.rename(tmp_path / name)
    assert len(source().read(tmp_path / name)) == 1


@pytest.mark.parametrize("length", [300, 5000])
def test_a_path_too_long(tmp_path: Path, length: int) -> None:
    for read in (read_torch, read_npz, read_pickle):
        with pytest.raises(InputError, match=r"/a+: File name too long; correct weight\.path$"):
            read(tmp_path / ("a" * length))


def test_an_npz_that_would_fill_the_memory_is_not_unpacked(
    refuse: Callable, model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**25,)})
        for _ in range(128):
            file.write(bytes(2**20))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    message = refuse(GroupNormReproduce(), path, model)
    assert re.search(r": it unpacks to 13421\d+ bytes, which no weights do; nothing in it was run; give", message)


def test_packed_weights_are_read(tmp_path: Path, randomly: Callable) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=randomly(100, 100), zeros=np.zeros((1000, 1000)))
    assert np.array_equal(read_npz(tmp_path / "a.npz")["a"], randomly(100, 100))


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(InputError, match=r": it is a single array, a \.npy; nothing"):
        read_npz(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(2**62,), (-1,), (2**40, 2**40), (0, 2**62), ("a",)], ids=str)
def test_an_array_that_says_to_be_huge(tmp_path: Path, shape: tuple[Any, ...]) -> None:
    """Both where numpy is told of it, and in the array's state."""
    for state in ((1, (1,), np.dtype("f4"), False, b"abcd"), (1, shape, np.dtype("f4"), False, b"abcd")):
        array = Call(np.core.multiarray._reconstruct if np.__version__ < "2" else np._core.multiarray._reconstruct)
        array.call = (array.call[0], (np.ndarray, shape, "f4"), state)  # pyright: ignore
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": array}, protocol=2))
        try:
            assert tensors(read_pickle(tmp_path / "a.pkl"), tmp_path)["a"].numel() == 1
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_reasons_are_one_plain_line(refuse: Callable, model: nn.Module, tmp_path: Path) -> None:
    """torch explains itself over pages."""
    path = tmp_path / "file.pth"
    np.savez(path.with_suffix(".npz"), a=np.ones(3))
    path.with_suffix(".npz").rename(path)
    reason = ": its archive is cut off, damaged or not of torch.save; nothing in it was run; give a file of this layout, whole"
    assert refuse(Torchvision(), path, model) == f"{path}: cannot be read as a torch file of arrays{reason}"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False, pickle_protocol=4)
    message = refuse(Torchvision(), path, model)
    assert re.fullmatch(r"\S+: cannot be read as a torch file of arrays: Unsupported operand \d+; nothing .*", message), message
    path.write_text("hello\n")  # whose reason, as raised, is a key alone: 101
    reason = ": its bytes are not of such a file; nothing in it was run; give a file of this layout, whole"
    assert refuse(Torchvision(), path, model) == f"{path}: cannot be read as a torch file of arrays{reason}"


def test_a_torch_file_where_a_pickle_of_arrays_was_expected(refuse: Callable, model: nn.Module, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pkl")
    message = refuse(Detectron(), tmp_path / "a.pkl", model)
    assert "cannot be read as a pickle file of arrays: torch.save wrote it" in message
