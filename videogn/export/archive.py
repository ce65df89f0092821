"""Whether torch may read a .pt2 file: torch itself runs code that such a file names.

`torch.export.load` evaluates the file's size expressions as Python (sympy.sympify), takes any attribute of torch for an operator,
and falls back to full pickles. A file that `videogn export` wrote has none of what this makes possible, and any other is refused.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from videogn.types import InputError

# What torch names in a graph: its own operators, and arithmetic on sizes.
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prim|prims)\.\w+\.\w+|torch\.sym_(int|float|max|min|not|ite)|math\.(floor|ceil|trunc)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|getitem|eq|ne|lt|le|gt|ge)"
)
# A size as torch writes it: Add(FloorDiv(Symbol('s7', positive=True, integer=True), Integer(2)), Integer(1)). No powers, which
# can be larger than any memory.
_EXPRESSION = re.compile(
    r"(Symbol\('[a-z]+\d+'(, (positive|integer|nonnegative|real|finite)=(True|False))*\)|Integer\(-?\d{1,18}\)|-?\d{1,18}"
    r"|(Add|Mul|FloorDiv|CleanDiv|Mod|PythonMod|Max|Min|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Equality|Unequality|StrictLessThan"
    r"|StrictGreaterThan|LessThan|GreaterThan)\(|[(), ]|true|false|True|False)*"
)
# Below the one folder of a .pt2. `extra` is ours, and read as JSON.
_ENTRY = re.compile(
    r"(data/(weights|constants)/(\w+_(weights|constants)_config\.json|(weight|tensor)_\d+)|data/sample_inputs/\w+\.pt|models/\w+\.json"
    r"|extra/\w+|archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment)"
)


def check_archive(path: Path, trust: bool) -> None:
    """Refuse a .pt2 that could make torch run what it holds.

    Args:
        trust: open it all the same: it comes from where programs may come from.

    Raises:
        InputError: no .pt2, native code, a pickle, or a graph of anything but torch's own operators on sizes and tensors.
    """
    if trust:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, path)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a .pt2 of torch, or a damaged one ({type(error).__name__})") from error


def _check(archive: zipfile.ZipFile, path: Path) -> None:
    names = archive.namelist()
    if len(set(names)) < len(names) or len({name.partition("/")[0] for name in names}) != 1:
        raise InputError(f"{path}: its entries lie in several folders or are there twice, which no export writes; not opened")
    for name in names:
        inside = name.partition("/")[2]
        if inside.startswith("data/aotinductor/"):
            raise InputError(
                f"{path}: holds native code ({name}), which runs with all that you may do as soon as it is loaded; give --trust "
                "(from Python: trust=True) if you know who built it"
            )
        if not _ENTRY.fullmatch(inside):
            raise InputError(f"{path}: holds {name}, which no export writes; not opened")
        if inside.endswith(".pt"):
            _check_tensors(archive.read(name), f"{path}: {name}")
        elif inside.endswith(".json"):
            _check_node(json.loads(archive.read(name)), f"{path}: {name}")


def _check_tensors(content: bytes, place: str) -> None:
    import torch

    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # bytes of any kind make the unpickler fail in any way
        raise InputError(f"{place}: holds a pickle of more than tensors, which runs what it names; not opened") from error


def _check_node(node: Any, place: str) -> None:
    """Refuse what torch would run, anywhere in the graph's JSON."""
    if isinstance(node, list):
        for child in node:
            _check_node(child, place)
    if not isinstance(node, dict):
        return
    rules = {
        "target": lambda value: "inputs" not in node or bool(_OPERATOR.fullmatch(str(value))),
        "expr_str": lambda value: bool(_EXPRESSION.fullmatch(str(value))),
        "guards_code": lambda value: not value,
        "use_pickle": lambda value: value is False,
    }
    for key, value in node.items():
        if key in rules and not rules[key](value):
            shown = str(value) if len(str(value)) <= 60 else f"{str(value)[:60]}..."
            raise InputError(f"{place}: {key}={shown!r} is nothing that an export writes, and torch would run it; not opened")
        _check_node(value, place)
