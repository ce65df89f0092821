"""What a configuration computes, as a hash: the same one for the same work, wherever it is done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from videogn import __version__

# What a training computes does not depend on where it runs and writes, or on how it shows that.
_VOLATILE = (
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "num_workers",
    "out",
    "resume",
    "checkpoint",
    "sweep",
    "logger",
    "report_videos",
    "cases",
    "search",
    "hydra",
)
# Keys that are paths, whatever they look like.
PATHS = ("checkpoint", "resume", "out", "weight.path", "weight.cache")


def config_hash(config: Mapping[str, Any]) -> str:
    """What a job computes, as 12 hex digits: the resolved configuration without volatile keys, and videogn's version.

    A path stands for what it names: a file for its bytes, a folder for the names and sizes of the files below it.
    """
    values = {".".join(map(str, key)): value for key, value in leaves(config)}
    values = {
        key: _content(value)
        if isinstance(value, str) and (os.sep in value or key.startswith("dataset.") or key in PATHS)
        else value
        for key, value in values.items()
        if not is_volatile(key)
    }
    text = json.dumps({"version": __version__, **values}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_volatile(key: str) -> bool:
    """Whether it says where and how a training runs, or what is kept of it, and not what it computes."""
    return f"{key.replace('/', '.')}.".startswith(tuple(f"{volatile}." for volatile in _VOLATILE))


def _content(value: str) -> str:
    path = Path(value)
    if not value or not path.exists():
        return value
    digest = hashlib.sha256()
    if path.is_file():
        digest.update(path.read_bytes())
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else ():
        digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def leaves(node: Any, key: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(path of keys, value) of everything in nested dicts and lists."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from leaves(child, (*key, name))
    elif isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from leaves(child, (*key, index))
    else:
        yield key, node
