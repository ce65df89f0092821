"""A data set in tar shards, as `videogn prepare shard_size=1GB` writes them: in a folder, or behind an address."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from typing import Any

from videogn.dataset.columns import Entry
from videogn.dataset.manifest import Manifest, classes_of, entries_of, is_whole_number, validated
from videogn.dataset.shard_decoder import Place, Places, ShardDecoder
from videogn.dataset.storage import Storage
from videogn.dataset.text import lines_of, table_of, text_of
from videogn.types import Decoder, InputError

COLUMNS = ("shard", "offset", "size", "sha256")
# A manifest of 240,000 videos is 70 MB; with its rows as Python's own it takes ten times that while it is read.
MAX_LIST_BYTES = 2**29
MAX_LINE_BYTES = 2**20
# Nothing that leads out of the folder, or to another server.
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.tar")
_FIRST_BYTES = 512  # that are read of one video before a run begins
_hashes: dict[str, str] = {}  # of the lists of a root, as they were read last


class Shards:
    """Videos in tar files, with a manifest.csv beside them that says where in which file each one lies.

    Only the bytes of the videos that are asked for are read. Paths, labels and splits are those of the same videos prepared as
    files, so that a training, its result and what that may be compared with are the same.

    Args:
        root: folder of the shards, or its address, as s3://bucket/folder or https://host/folder.
        flip: probability that a training clip is mirrored; false is 0, true 0.5.
        storage_options, timeout_seconds, num_retries: see `Storage`.
    """

    def __init__(
        self,
        root: str,
        flip: float | int,
        storage_options: Any = None,
        timeout_seconds: float | int = 60.0,
        num_retries: int = 6,
    ) -> None:
        self._storage = Storage(root, storage_options, timeout_seconds, num_retries)
        self.name = self._storage.place.rsplit("/", 1)[-1].replace(":", "_")  # of a host and its port: a run folder is named so
        self.flip = flip
        self._places: Places | None = None

    def manifest(self) -> Manifest:
        storage = self._storage
        storage.check()
        content, classes = _lists(storage)
        path = storage.name("manifest.csv")
        columns, rows = table_of(text_of(content, path, "manifest"), path)
        listed = list(entries_of(columns, rows, classes, path, COLUMNS))
        at = [columns.index(column) for column in COLUMNS]
        cells = [(line, entry, *(row[place] for place in at)) for line, entry, row in listed]
        lines = [line for line, *_ in listed]
        del listed, content
        shards = sorted({shard for _, _, shard, *_ in cells if shard})
        for line, entry, shard, *_ in cells:
            if shard and not _SHARD.fullmatch(shard):
                raise InputError(
                    f"{path} line {line}: {entry.path}: shard {shard!r} is no plain name of a .tar; shards lie beside their list"
                )
        if not shards:
            raise InputError(f"{path}: no video lies in a shard; give a folder that videogn prepare shard_size=1GB wrote")
        sizes = dict(zip(shards, storage.sizes(shards), strict=True))
        places = [(entry.path, _place(f"{path} line {line}", entry, sizes, *found)) for line, entry, *found in cells]
        _check_paths(path, lines, [name for name, _ in places])
        files = [f"{place.shard} {place.offset}" if place.size else f"none {row}" for row, (_, place) in enumerate(places)]
        entries = [entry for _, entry, *_ in cells]
        where = lambda row: f"{path} line {lines[row]}"  # noqa: E731
        manifest = validated(storage.root, entries, classes, path, at=where, files=files)
        first = next(place for _, place in places if place.size)
        for _ in storage.blocks(first.shard, first.offset, min(first.size, _FIRST_BYTES), first.shard_bytes):
            pass  # a server that gives no parts of files is known before a run begins
        self._places = Places(places)
        return manifest

    def reads_with(self, decoder: Decoder) -> Decoder:
        """What opens the videos of the manifest with a decoder of files."""
        return ShardDecoder(decoder, self._storage, self._known_places())

    def source(self, path: str) -> tuple[dict[str, Any], Place]:
        """The arguments of a `Storage`, and where in it a video of the manifest lies."""
        return self._storage.arguments, self._known_places()[path]

    def _known_places(self) -> Places:
        if self._places is None:
            self.manifest()
        assert self._places is not None
        return self._places


def are_shards(config: Mapping[str, Any] | None) -> bool:
    """Whether it is the group `dataset` of shards."""
    return config is not None and config.get("_target_") == f"{Shards.__module__}.{Shards.__name__}"


def content_hash(config: Mapping[str, Any]) -> str:
    """Of the lists of a data set, as they were when this process read them: what a job computes does not depend on where it lies.

    Args:
        config: of the group `dataset`.
    """
    keys = ("storage_options", "timeout_seconds", "num_retries")
    storage = Storage(str(config["root"]), *(config[key] for key in keys))
    # Not asked for again from a server: it may be down when a result is written.
    if not storage.is_remote or storage.root not in _hashes:
        _lists(storage)
    return _hashes[storage.root]


def _lists(storage: Storage) -> tuple[bytes, tuple[str, ...]]:
    """manifest.csv, and the classes of classes.txt."""
    manifest, classes = (_read(storage, name) for name in ("manifest.csv", "classes.txt"))
    _hashes[storage.root] = hashlib.sha256(manifest + b"\0" + classes).hexdigest()
    path = storage.name("classes.txt")
    return manifest, classes_of(lines_of(text_of(classes, path, "class list")), path)


def _read(storage: Storage, name: str) -> bytes:
    (size,) = storage.sizes([name])
    if size > MAX_LIST_BYTES:
        raise InputError(f"{storage.name(name)}: {size:,} bytes, and a list has {MAX_LIST_BYTES:,} at most; divide the data set")
    content = b"".join(storage.blocks(name, 0, size, size))
    if max(map(len, io.BytesIO(content)), default=0) > MAX_LINE_BYTES:
        raise InputError(f"{storage.name(name)}: a line of more than {MAX_LINE_BYTES:,} bytes; it is no list of videogn prepare")
    return content


def _place(where: str, entry: Entry, sizes: Mapping[str, int], shard: str, offset: str, size: str, sha256: str) -> Place:
    """Raises InputError: the video cannot lie there."""
    if not shard:
        return Place("", 0, 0, 0, "", False)
    if not (is_whole_number(offset) and is_whole_number(size) and int(size)):
        raise InputError(f"{where}: {entry.path}: offset {offset!r} and size {size!r}; give whole numbers, the size above 0")
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InputError(f"{where}: {entry.path}: sha256 {sha256!r} is none; prepare the shards anew")
    if int(offset) + int(size) > sizes[shard]:
        raise InputError(
            f"{where}: {entry.path}: lies at {int(offset):,} to {int(offset) + int(size):,} of {shard}, which ends at "
            f"{sizes[shard]:,}; the shard is not whole, or not of this manifest: copy both anew"
        )
    return Place(shard, sizes[shard], int(offset), int(size), sha256, entry.num_bytes == int(size))


def _check_paths(path: str, lines: list[int], names: list[str]) -> None:
    first: dict[str, int] = {}
    for line, name in zip(lines, names, strict=True):
        if first.setdefault(name, line) != line:
            raise InputError(f"{path} line {line}: {name!r} stands in line {first[name]} already; a video is listed once")
