"""Files of arrays, read without trusting them: nothing that a file names is imported or run."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from videogn.types import InputError

# numpy's own, which moved from numpy.core to numpy._core: what a pickled array, and a pickled number, names.
_ARRAY_FUNCTIONS = {"_reconstruct": np.zeros(0).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
_ARRAY_GLOBALS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): OrderedDict,
}


def read_torch(path: Path) -> Any:
    """What torch.save or safetensors wrote: tensors and plain data."""
    if path.suffix == ".safetensors":
        return _guarded(path, lambda: load_file(path), "safetensors")
    return _guarded(path, lambda: torch.load(path, map_location="cpu", weights_only=True), "torch")


def read_pickle(path: Path) -> Any:
    """A pickle of numpy arrays and plain data, as Caffe2's tools wrote under Python 2."""
    return _guarded(path, lambda: _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load(), "pickle")


def read_npz(path: Path) -> Any:
    """numpy's .npz, without pickled objects."""

    def read() -> dict[str, Any]:
        # np.load leaves a file that it opened itself open where it cannot read it.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    return _guarded(path, read, "npz")


def tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The named arrays and tensors of a mapping, as tensors; other entries (a step, a learning rate) are left.

    Raises:
        InputError: no mapping, no tensor in it, or a value that is not finite.
    """
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path}: holds a {type(content).__name__} where names and tensors were expected; is it of another layout?"
        )
    found: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.ndim:
            dtype = np.dtype(np.float64) if value.dtype.itemsize > 8 else value.dtype.newbyteorder("=")
            value = torch.from_numpy(np.ascontiguousarray(value, dtype=dtype))
        if isinstance(value, Tensor) and isinstance(name, str) and value.layout == torch.strided and not value.is_meta:
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise InputError(f"{path}: {name} holds a value that is not finite; the file is damaged, or its training failed")
            # Inflation and conversion compute with it: 11 bits would round a third of a kernel.
            found[name] = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if not found:
        raise InputError(f"{path}: no tensor under the names of a network; is it of another layout?")
    return found


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and plain data, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in _ARRAY_FUNCTIONS:
            return _ARRAY_FUNCTIONS[name]
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        if (module, name) in _ARRAY_GLOBALS:
            return _ARRAY_GLOBALS[module, name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")

    @staticmethod
    def _encode(text: str, encoding: str) -> bytes:
        # How Python 3 writes the bytes of an array in protocol 2.
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it encodes to {encoding!r}")
        return text.encode("latin1")


def _guarded(path: Path, read: Callable[[], Any], kind: str) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file; correct weight.path")
    try:
        return read()
    except InputError:
        raise
    except Exception as error:  # bytes of any kind make a reader fail in any way
        raise InputError(
            f"{path}: cannot be read as a {kind} file of arrays: {_reason(path, error)}; nothing in it was run. "
            "Give a file of this layout, whole"
        ) from error


def _reason(path: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "Unsupported global" in text:
        return "it names " + text.split("GLOBAL ")[1].split(" ")[0] + ", which is no tensor"
    if path.stat().st_size == 0:
        return "it is empty"
    return text[:120] or type(error).__name__
