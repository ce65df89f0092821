"""Files of arrays, read without trusting them: nothing that a file names is imported or run."""

from __future__ import annotations

import io
import math
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from videogn.packing import check_unpacked_size
from videogn.types import InputError
from videogn.weight.inert import Inert, read_inert

# Where trainings keep weights beside other things: timm, mmaction2 and Lightning; PySlowFast and pytorchvideo; torchvision.
_WEIGHTS = ("state_dict", "model_state", "model")
# Means of the weights over steps, which timm and torchvision keep beside these.
_MEANS = ("state_dict_ema", "model_ema")
# What DataParallel and AveragedModel, and torch.compile, put before the names of the network that they hold.
_WRAPPERS = ("module.", "_orig_mod.")
_LOADED = "torch.load('FILE', weights_only=False)"  # in a message
# A billion bytes of float32, ten times our largest layer: a few bytes can be said to be that many values.
_LARGEST = 2**28


class State(dict[str, Tensor]):
    """Tensors under the names of a file.

    Attributes:
        note: what should be known of where they lay, or nothing.
    """

    note = ""


def read_torch(path: Path) -> Any:
    """What torch.save or safetensors wrote: tensors, plain data and, of a zip archive, `Inert` objects for all else."""
    if path.suffix.lower() == ".safetensors":
        return _guarded(path, lambda: load_file(path), "safetensors")

    def read() -> Any:
        is_archive = zipfile.is_zipfile(path)
        if is_archive:
            check_unpacked_size(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            if not is_archive:
                raise
        return read_inert(path)

    return _guarded(path, read, "torch")


def read_state(path: Path) -> State:
    """The weights of such a file: where trainings keep them, or at its top; without what wrappers put before the names.

    Raises:
        InputError: see `tensors`.
    """
    content, key = read_torch(path), None
    if isinstance(content, Mapping):
        held = [key for key in (*_WEIGHTS, *_MEANS) if key in content]
        key = next((key for key in held if isinstance(content[key], Mapping)), held[0] if held else None)
    place = "" if key is None else f"['{key}']"
    state = State(_unwrapped(tensors(content if key is None else content[key], path, place)))
    if key in _MEANS:
        state.note = f"the weights are the means over steps, {key}: the file holds no others"
    return state


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    while dotted := [name for name in state if "." in name]:  # counters such as n_averaged stand beside what is wrapped
        prefix = next((prefix for prefix in _WRAPPERS if all(name.startswith(prefix) for name in dotted)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def read_pickle(path: Path) -> Any:
    """A pickle of numpy arrays and plain data, as Caffe2's tools wrote under Python 2."""
    return _guarded(path, lambda: _plain(_ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load(), {}), "pickle")


def read_npz(path: Path) -> Any:
    """numpy's .npz, without pickled objects."""

    def read() -> dict[str, Any]:
        # np.load leaves a file that it opened itself open where it cannot read it.
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as packed:
                    size = sum(record.file_size for record in packed.infolist())
                # Weights hardly pack, and a thousandfold is what zeros do; zipfile unpacks no more than was said.
                if size > 2**26 + 32 * path.stat().st_size:
                    raise ValueError(f"it unpacks to {size} bytes, which no weights do")
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single array, a .npy")
            with archive:
                return {name: archive[name] for name in archive.files}

    return _guarded(path, read, "npz")


def tensors(content: Any, path: Path, place: str = "") -> dict[str, Tensor]:
    """The named arrays and tensors of a mapping, as tensors; other entries (a step, a learning rate) are left.

    Args:
        place: how Python gets at `content` from what torch.load returns.

    Raises:
        InputError: no mapping, no tensor in it, or an object of another program where a layer's tensor should be.
    """
    if not isinstance(content, Mapping):
        inert = isinstance(content, Inert)
        raise InputError(
            f"{path}: holds a {content.stands_for if inert else type(content).__name__} where names and tensors were expected; "
            + (_remedy(f"{_LOADED}{place}.state_dict()") if inert else "is it of another layout?")
        )
    found: dict[str, Tensor] = {}
    # Not its own .items, which a pickle can put something else in the place of.
    for name, value in dict.items(content) if isinstance(content, dict) else content.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiubc" and value.ndim:
            value = _tensor(value)
        if isinstance(value, Tensor) and isinstance(name, str):
            found[name] = value
        elif isinstance(value, Inert) and str(name).endswith((".weight", ".bias", ".running_mean", ".running_var")):
            plain = f"{{name: torch.as_tensor(value) for name, value in {_LOADED}{place}.items()}}"
            raise InputError(f"{path}: {name} is a {value.stands_for}, which is not read; {_remedy(plain)}")
    if not found:
        raise InputError(f"{path}: no tensor under the names of a network; is it of another layout?")
    return found


def _tensor(array: np.ndarray) -> Tensor:
    widest = {"f": np.dtype(np.float64), "c": np.dtype(np.complex128)}.get(array.dtype.kind, array.dtype)
    dtype = widest if array.dtype.itemsize > widest.itemsize else array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # the infinity is found where the tensor is used
        return torch.from_numpy(np.ascontiguousarray(array, dtype=dtype))


def why_no_weight(value: Tensor) -> str:
    """What a tensor is, where it is none that a layer could have; else nothing."""
    if value.is_meta:
        return "has no values"
    if value.is_nested or value.layout != torch.strided:
        return "is nested" if value.is_nested else "is sparse"
    if value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return f"is of {value.dtype}"
    return f"is of {value.numel()} values" if value.numel() > _LARGEST else ""


class _Kind:
    """What a pickle calls numpy.dtype: of plain numbers or text; of other objects it stays unknown."""

    def __init__(self, code: Any, *_: Any) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if not re.fullmatch(r"[<>=|]?(?:[biufcSU]\d{1,6}|O\d?)", text):
            raise pickle.UnpicklingError(f"it holds an array of {text[:20]!r}")
        self.dtype = None if "O" in text else np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        if self.dtype is not None and state[1] in ("<", ">", "=", "|") and not any(state[2:5]):
            self.dtype = self.dtype.newbyteorder(state[1])
        elif self.dtype is not None:
            raise pickle.UnpicklingError("it holds an array of records")

    def values(self, data: Any, count: int) -> np.ndarray:
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
        if self.dtype is None or len(raw) != count * self.dtype.itemsize:
            raise pickle.UnpicklingError("an array in it has another size than it says")
        return np.frombuffer(raw, self.dtype).copy()


class _Array:
    """What a pickle builds as numpy.ndarray, whose own way to be built reads any memory that a file names."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        shape, kind, by_columns, data = state[-4:]
        if kind.dtype is not None:
            self.value = kind.values(data, math.prod(shape)).reshape(shape, order="F" if by_columns else "C")


class _ArrayUnpickler(pickle.Unpickler):
    """Builds arrays and plain data, by our own code alone, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in ("_reconstruct", "scalar"):
            return _new_array if name == "_reconstruct" else _number
        known = {
            ("numpy", "ndarray"): "numpy.ndarray",  # a word: it cannot be called
            ("numpy", "dtype"): _Kind,
            ("collections", "OrderedDict"): OrderedDict,
            ("_codecs", "encode"): _encode,
        }
        if (module, name) in known:
            return known[module, name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")


def _new_array(*_: Any) -> _Array:
    return _Array()


def _number(kind: Any, data: Any = "") -> Any:
    if not isinstance(kind, _Kind):
        raise pickle.UnpicklingError("a number in it has no type")
    return kind.values(data, 1)[0].item()


def _encode(text: str, encoding: str = "utf-8") -> bytes:
    # How Python 3 writes the bytes of an array in protocol 2.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes to {encoding!r}")
    return text.encode("latin1")


def _plain(content: Any, seen: dict[int, Any]) -> Any:
    """Arrays in place of what stands for them, in mappings at any depth."""
    if isinstance(content, _Array):
        return content.value
    if not isinstance(content, dict):
        return content
    if id(content) not in seen:
        seen[id(content)] = found = {}
        found.update((name, _plain(value, seen)) for name, value in content.items())
    return seen[id(content)]


def _remedy(weights: str) -> str:
    command = f"python -c \"import torch; torch.save({weights}, 'weights.pth')\""
    return f"if you trust it, write its tensors alone where it was made: {command}"


def _guarded(path: Path, read: Callable[[], Any], kind: str) -> Any:
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:  # a name that is too long
        raise InputError(f"{path}: {error.strerror}; correct weight.path") from None
    if not is_file:
        raise InputError(f"{path}: {'a folder; give the file in it as' if is_folder else 'no such file; correct'} weight.path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensors that are refused where they are used
            return read()
    except InputError:
        raise
    except Exception as error:  # bytes of any kind make a reader fail in any way
        reason = _reason(path, error)
        remedy = _remedy(f"{_LOADED}['state_dict']") if reason.endswith("no tensor") else "give a file of this layout, whole"
        raise InputError(
            f"{path}: cannot be read as a {kind} file of arrays: {reason}; nothing in it was run; {remedy}"
        ) from error


def _reason(path: Path, error: Exception) -> str:
    text = str(error)
    if found := re.search(r"GLOBAL (\S+)", text):
        return f"it names {found[1]}, which is no tensor"
    if "persistent_load" in text or "persistent id" in text:
        return "torch.save wrote it"
    if path.stat().st_size == 0:
        return "it is empty"
    if "PytorchStreamReader" in text or "inline_container" in text:
        return "its archive is cut off, damaged or not of torch.save"
    if isinstance(error, LookupError):  # whose text is the key alone
        return "its bytes are not of such a file"
    # torch writes pages, in which the reason is the line behind this.
    lines = text.rpartition("WeightsUnpickler error:")[2].split("\n")
    sentence = next((line.strip() for line in lines if line.strip()), "").split(". ")[0]
    return sentence[:120] or type(error).__name__
