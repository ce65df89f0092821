"""What a configuration computes, as a hash: the same one for the same work, wherever it is done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from videogn import __version__
from videogn.dataset.files import files_below
from videogn.dataset.shards import are_shards, content_hash

# How data are reached, wherever they lie.
DATASET_READING = ("dataset.storage_options", "dataset.timeout_seconds", "dataset.num_retries")
# What a training computes does not depend on where it runs and writes, or on how it shows that.
_VOLATILE = (
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "num_workers",
    *DATASET_READING,
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
_OUTPUTS = Path("runs")  # of all commands; they may lie among the videos
# Keys that are paths, whatever they look like.
PATHS = ("checkpoint", "resume", "out", "weight.path", "weight.cache")
DATASET_PATHS = ("dataset.root", "dataset.path", "dataset.groups", "dataset.annotations", "dataset.exclude")


def config_hash(config: Mapping[str, Any], contents: dict[str, str] | None = None) -> str:
    """What a job computes, as 12 hex digits: the resolved configuration without volatile keys, and videogn's version.

    A path stands for what it names: a file for its bytes, a folder for the names and sizes of the files below it, a run to start
    from for the bytes of its last.ckpt, shards for their lists, wherever they lie; one in `out` is written, and stands for its
    place there.

    Args:
        contents: of the paths that were looked at before, to be looked at once a command.
    """
    contents = {} if contents is None else contents
    out = f"{config.get('out')}{os.sep}"
    values = {}
    for key, value in ((".".join(map(str, key)), value) for key, value in leaves(config)):
        if is_volatile(key):
            continue
        if key == "weight.cache":
            value = None  # where files are fetched to says nothing of them
        elif isinstance(value, str):
            is_read = key.startswith("dataset.") or key in PATHS
            if not is_read and value.startswith(out):
                value = value[len(out) - 1 :]
            elif is_read or os.sep in value:
                if value not in contents:
                    in_shards = key == "dataset.root" and are_shards(config["dataset"])
                    contents[value] = content_hash(config["dataset"]) if in_shards else _content(value)
                value = contents[value]
        values[key] = value
    text = json.dumps({"version": __version__, **values}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_volatile(key: str) -> bool:
    """Whether it says where and how a training runs, or what is kept of it, and not what it computes."""
    return f"{key.replace('/', '.')}.".startswith(tuple(f"{volatile}." for volatile in _VOLATILE))


def _content(value: str) -> str:
    path = Path(value)
    if not value or not path.exists():
        return value
    if (last := path / "checkpoint" / "last.ckpt").is_file():
        path = last
    digest = hashlib.sha256()
    if path.is_file():
        digest.update(path.read_bytes())
    else:
        outputs = [_OUTPUTS] if _OUTPUTS.is_dir() else []
        files = (folder / name for folder, names in files_below(path, around=outputs) for name in names)
        for file in sorted(files):
            size = file.stat().st_size
            digest.update(f"{file.relative_to(path).as_posix()}\0{size}\n".encode("utf-8", "surrogateescape"))
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
