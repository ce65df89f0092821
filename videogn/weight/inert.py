"""Checkpoints that hold more than tensors: whatever is no tensor in them is read as an object that does nothing.

Trainings save what they have at hand beside the weights: parsed arguments, loggers, paths. Such a file is unpickled here with
classes of our own alone. Those of tensors note what the file says and build the tensors in the end, once sizes are checked;
every other name becomes an `Inert`. Nothing that a file names is imported or called.
"""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Of the names under which torch.save keeps values; rarer kinds stay inert.
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Inert:
    """Stands for an object of another program. All that a pickle can do to an object, or to a class, does nothing."""

    stands_for = ""  # its name in the file

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return object.__new__(cls)

    def _nothing(self: Any = None, *_: Any, **__: Any) -> Any:
        return self

    __call__ = __setstate__ = __setitem__ = append = extend = add = _nothing


class _Dict(dict):
    """Stands for the dictionaries of `collections`, but takes no attributes: they could hide its methods."""

    __setstate__ = Inert._nothing


class _DefaultDict(_Dict):
    def __init__(self, *_: Any) -> None:
        super().__init__()


class _Storage(Inert):
    def __init__(self, dtype: torch.dtype, key: str, size: int) -> None:
        self.dtype, self.key, self.size = dtype, key, size


class _View(Inert):
    """A tensor: positions in a storage; of None where its values are not those that lie there, but negated or conjugated."""

    stands_for = "torch._utils._rebuild_tensor_v2"

    def __init__(
        self, storage: Any, offset: Any, size: Any, stride: Any, grad: Any = None, hooks: Any = None, lazy: Any = None
    ) -> None:
        self.storage, self.offset, self.size, self.stride = None if lazy else storage, offset, size, stride

    def of(self, values: Tensor) -> Tensor:
        size, stride = tuple(self.size), tuple(self.stride)
        if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in (self.offset, *size, *stride)):
            raise pickle.UnpicklingError("a tensor in it has a shape of something else than numbers")
        last = self.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= values.numel():
            raise pickle.UnpicklingError("a tensor in it is larger than its values")
        return values.as_strided(size, stride, self.offset)


class _Parameter(Inert):
    def __new__(cls, data: Any = None, *_: Any) -> Any:
        return data


_KNOWN = {
    ("collections", "OrderedDict"): _Dict,
    ("collections", "defaultdict"): _DefaultDict,
    ("torch._utils", "_rebuild_tensor_v2"): _View,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return name  # a word: it cannot be called
        return _KNOWN.get((module, name)) or type("Inert", (Inert,), {"stands_for": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        kind, storage, key, _, size = pid
        if kind != "storage" or not isinstance(key, str) or type(size) is not int:
            raise pickle.UnpicklingError("it refers to something else than values")
        return _Storage(_DTYPES[storage], key, size) if storage in _DTYPES else Inert()


def read_inert(path: Path) -> Any:
    """What torch.save wrote into a zip archive: tensors and plain data in mappings, and `Inert` objects.

    Raises:
        pickle.UnpicklingError, and whatever damaged bytes make Python raise.
    """
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        order = f"{root}/byteorder"
        if order in archive.namelist() and archive.read(order).decode() != sys.byteorder:
            raise pickle.UnpicklingError("it was written on a machine of another byte order")
        content = _Unpickler(io.BytesIO(archive.read(f"{root}/data.pkl"))).load()
        return _with_tensors(content, partial(_values, archive, root, {}), {})


def _values(archive: zipfile.ZipFile, root: str, read: dict[str, Tensor], storage: _Storage) -> Tensor:
    if storage.key not in read:
        raw = bytearray(archive.read(f"{root}/data/{storage.key}"))
        if len(raw) != storage.size * storage.dtype.itemsize:
            raise pickle.UnpicklingError("a tensor in it has another size than it says")
        read[storage.key] = torch.frombuffer(raw, dtype=storage.dtype) if raw else torch.empty(0, dtype=storage.dtype)
    return read[storage.key]


def _with_tensors(content: Any, values: Any, seen: dict[int, Any]) -> Any:
    """Tensors in place of what stands for them, in mappings at any depth."""
    if isinstance(content, _View):
        return content.of(values(content.storage)) if isinstance(content.storage, _Storage) else content
    if not isinstance(content, dict):
        return content
    if id(content) not in seen:
        seen[id(content)] = found = {}
        found.update((name, _with_tensors(value, values, seen)) for name, value in content.items())
    return seen[id(content)]
