"""Opens videos that lie in shards: their bytes are fetched into a file without a name, which a decoder opens."""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from videogn.anonymous import anonymous_file
from videogn.dataset.storage import Storage
from videogn.types import Decoder, StorageError, Video, VideoError

# Up to this size a fetched video lies in memory; some hundred seconds at 256 pixels. Decoding one takes as much besides.
MEMORY_BYTES = 64 * 2**20
_DESCRIPTORS = Path("/proc/self/fd")


class Place(NamedTuple):
    """Where a video lies.

    Attributes:
        shard: name of the file.
        shard_bytes: its size.
        offset: of the video's first byte.
        size: of the video in bytes; 0 for one that is in no shard, since it could not be prepared.
        sha256: of these bytes, in hexadecimal digits.
        is_whole: a full decode of these bytes has found nothing missing.
    """

    shard: str
    shard_bytes: int
    offset: int
    size: int
    sha256: str
    is_whole: bool


class Places:
    """Path -> Place, 70 bytes a video: what a loader's worker looks at, it copies, and a dict of 240,000 is 100 MB."""

    def __init__(self, places: Iterable[tuple[str, Place]]) -> None:
        named = list(places)
        keys = np.array([_key(path) for path, _ in named], np.uint64)
        order = np.argsort(keys)
        self._keys = keys[order]
        assert (self._keys[1:] != self._keys[:-1]).all(), "a path that stands twice"
        ordered = [named[row][1] for row in order.tolist()]
        self._shards: tuple[tuple[str, int], ...] = tuple({(place.shard, place.shard_bytes): None for place in ordered})
        number = {shard: row for row, shard in enumerate(self._shards)}
        self._shard = np.array([number[place.shard, place.shard_bytes] for place in ordered], np.int64)
        self._ranges = np.array([(place.offset, place.size) for place in ordered], np.int64).reshape(-1, 2)
        self._sha256 = b"".join(bytes.fromhex(place.sha256) or bytes(32) for place in ordered)
        self._is_whole = np.array([place.is_whole for place in ordered], np.bool_)

    def __getitem__(self, path: str) -> Place:
        key = np.uint64(_key(path))
        row = int(np.searchsorted(self._keys, key))
        if row == len(self._keys) or self._keys[row] != key:
            raise KeyError(path)
        shard, shard_bytes = self._shards[self._shard[row]]
        offset, size = self._ranges[row].tolist()
        sha256 = self._sha256[32 * row : 32 * row + 32].hex()
        return Place(shard, shard_bytes, offset, size, sha256, bool(self._is_whole[row]))


class ShardDecoder:
    """Opens the videos of shards by the paths that their manifest gives, with another decoder.

    A video whose bytes are not those that were written cannot be read, as any damaged one; a server that does not give them is
    no fault of the video, and raises StorageError.

    Args:
        decoder: opens files. One with a process of its own is left to itself for a video that was verified, as for files.
        storage: where the shards lie.
        places: of the videos.
    """

    def __init__(self, decoder: Decoder, storage: Storage, places: Places) -> None:
        self.name = decoder.name
        self._decoder = decoder
        self._storage = storage
        self._places = places

    def open(self, path: str | Path) -> ShardVideo:
        name = os.fspath(path)
        roots = (f"{self._storage.root}/", f"{self._storage.place}/")
        try:
            place = self._places[name.removeprefix(next((root for root in roots if name.startswith(root)), ""))]
        except KeyError:
            raise VideoError(path, "is in none of the shards") from None
        return ShardVideo(name, place, fetched(name, place, self._storage), self._decoder)


def fetched(name: str | Path, place: Place, storage: Storage) -> PrivateFile:
    """A video's bytes, in a file.

    Args:
        name: what messages call the video.

    Raises:
        VideoError: it is in no shard, or its bytes are not those that were written.
        StorageError: its bytes do not come, or there is no room for them.
    """
    if not place.size:
        raise VideoError(name, "could not be prepared, and is in none of the shards")
    # Once more: over a network, bytes also change on their way.
    for _ in range(2 if storage.is_remote else 1):
        file = PrivateFile(place.size)
        digest = hashlib.sha256()
        for block in storage.blocks(place.shard, place.offset, place.size, place.shard_bytes):
            digest.update(block)
            try:
                file.write(block)
            except OSError as error:
                raise StorageError(
                    f"{name}: no room for its {place.size:,} bytes in {tempfile.gettempdir()}: {error.strerror}; make room, or "
                    "name another folder with TMPDIR"
                ) from None
        if digest.hexdigest() == place.sha256:
            return file
        file.close()
    raise VideoError(name, f"its bytes in {place.shard} are not those that were written: their SHA-256 is another")


class ShardVideo:
    """An open video of a shard; see `videogn.types.Video`. What goes wrong is told under its own name."""

    def __init__(self, name: str, place: Place, file: PrivateFile, decoder: Decoder) -> None:
        self._name, self._shard, self._file = name, place.shard, file
        if place.is_whole:
            decoder = getattr(decoder, "direct", decoder)
        try:
            self._video: Video = decoder.open(file.path)
        except BaseException as error:
            file.close()
            if isinstance(error, VideoError):
                raise self._renamed(error) from None
            raise
        self._take()

    def frames(self, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        try:
            return self._video.frames(indices)
        except VideoError as error:
            raise self._renamed(error) from None
        finally:
            self._take()  # it may have recounted

    def close(self) -> None:
        self._video.close()
        self._file.close()

    def _take(self) -> None:
        video = self._video
        self.timestamps, self.num_frames, self.fps = video.timestamps, video.num_frames, video.fps
        self.height, self.width = video.height, video.width

    def _renamed(self, error: VideoError) -> VideoError:
        return type(error)(self._name, f"{error.reason} (in {self._shard})")


class PrivateFile:
    """A file of this process; in memory where it is small. It goes with the process, however that ends, where there is /proc.

    Attributes:
        path: under which other processes of this user can open it, too.
        close: ends it; may be called again.
    """

    def __init__(self, size: int) -> None:
        if _DESCRIPTORS.is_dir():
            self._file = anonymous_file("video", in_memory=size <= MEMORY_BYTES)
            self.path = f"/proc/{os.getpid()}/fd/{self._file}"
            self.close = weakref.finalize(self, os.close, self._file)
        else:
            self._file, self.path = tempfile.mkstemp(prefix="videogn-", suffix=".mp4")
            self.close = weakref.finalize(self, _remove, self._file, self.path)

    def write(self, block: bytes) -> None:
        while block:
            block = block[os.write(self._file, block) :]


def _remove(file: int, path: str) -> None:
    os.close(file)
    os.unlink(path)


def _key(path: str) -> int:
    """64 bits: of a million paths two have the same one by a chance of 3e-8."""
    return int.from_bytes(hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")
