"""Pack written videos into tar shards in WebDataset's layout.

A sample of a shard is three files of one key: KEY.mp4, the video; KEY.cls, the place of its class among the classes; KEY.json,
its path, label, video_id, split, group and SHA-256. A shard has videos of one split, in the order of their keys, which are hashes
of their paths: so classes and recordings are mixed, and the same videos give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from videogn.dataset.columns import SPLITS, Entry
from videogn.preparation.verify import Facts
from videogn.types import Findings, InputError

NUM_DIGITS = 6
PATTERN = f"shard-{'[0-9]' * NUM_DIGITS}.tar"
_WAITING = ".shard-*.tar"  # whole, until all are
_BLOCK_BYTES = tarfile.BLOCKSIZE  # of headers, and what contents are filled up to


@dataclass(frozen=True)
class Sample:
    """A video of a shard, all but its bytes.

    Attributes:
        key: name of its files.
        size: of the video in bytes.
        label: content of KEY.cls.
        facts: content of KEY.json.
    """

    key: str
    size: int
    label: bytes
    facts: bytes

    @property
    def path(self) -> str:
        return json.loads(self.facts)["path"]

    @property
    def sha256(self) -> str:
        return json.loads(self.facts)["sha256"]

    @property
    def tar_bytes(self) -> int:
        return sum(_BLOCK_BYTES * (1 + -(-size // _BLOCK_BYTES)) for size in (self.size, len(self.label), len(self.facts)))


@dataclass(frozen=True)
class Lying:
    """Where a video's bytes lie.

    Attributes:
        shard: name of the file.
        offset: of the first.
        size: their number.
        sha256: theirs.
    """

    shard: str
    offset: int
    size: int
    sha256: str


def sample_of(path: str, entry: Entry, facts: Facts, classes: Sequence[str]) -> Sample:
    """Of a written file, by its path in the folder."""
    known = {"path": path, "label": entry.label, "video_id": entry.video_id, "split": entry.split, "group": entry.group}
    text = json.dumps({**known, "sha256": facts.sha256}, sort_keys=True)  # ASCII: bytes of names that are no text are escaped
    key = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Sample(key, facts.num_bytes, str(classes.index(entry.label)).encode(), text.encode())


def planned(samples: Iterable[Sample], shard_bytes: int) -> dict[str, list[Sample]]:
    """Name -> its videos, of every shard: as many as fit, and one at least.

    Raises:
        InputError: there are more than names.
    """
    shards: list[list[Sample]] = []
    of_split: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    for sample in samples:
        of_split[json.loads(sample.facts)["split"]].append(sample)
    for split in SPLITS:
        room = -1
        for sample in sorted(of_split[split], key=lambda sample: sample.key):
            if sample.tar_bytes > room:
                shards.append([])
                # A tar ends with two empty blocks, and is filled up to whole records.
                room = shard_bytes // tarfile.RECORDSIZE * tarfile.RECORDSIZE - 2 * _BLOCK_BYTES
            shards[-1].append(sample)
            room -= sample.tar_bytes
    if len(shards) > 10**NUM_DIGITS:
        raise InputError(f"shard_size: {len(shards):,} shards, of {10**NUM_DIGITS:,} that have names; give a larger size")
    return {f"shard-{number:0{NUM_DIGITS}d}.tar": videos for number, videos in enumerate(shards)}


def contents(shard: Path) -> list[tuple[Sample, Lying]]:
    """What is in a shard that was written here; nothing of a file that is no such shard."""
    found = []
    try:
        with tarfile.open(shard, "r:") as tar:
            members = iter(tar)
            for video, label, facts in zip(members, members, members):  # noqa: B905 (one iterator, three at a time)
                texts = [_text(tar, member) for member in (label, facts)]
                sample = Sample(video.name.removesuffix(".mp4"), video.size, *texts)
                found.append((sample, Lying(shard.name, video.offset_data, video.size, sample.sha256)))
    except (tarfile.TarError, ValueError, KeyError, TypeError):
        return []
    return found


def lying(out: Path) -> dict[str, Lying]:
    """Path -> where it lies, of every video in the shards of a folder, those that wait for their names included."""
    shards = (*sorted(out.glob(_WAITING)), *sorted(out.glob(PATTERN)))
    return {sample.path: place for shard in shards for sample, place in contents(shard)}


def pack(samples: Iterable[Sample], out: Path, unfinished: Path, shard_bytes: int, watch: Callable[[int, int], None]) -> None:
    """Make the shards of these videos, and remove the files that are in them then.

    May be killed at any time: a shard gets its name when it is whole, and the same call makes those that are not there. A shard
    that is there and should hold other videos is written anew, from files or from the shards that there were, and waits under a
    hidden name until all are.

    Args:
        out: folder of the written files and of the shards.
        unfinished: folder on its disk where shards grow.
        shard_bytes: of a shard, unless a single video is larger.
        watch: is told how many of how many shards are there.

    Raises:
        OSError: they cannot be written.
        Findings: a file is not any more what was written.
    """
    plan = planned(samples, shard_bytes)
    there, waiting = ({s.name: [sample for sample, _ in contents(s)] for s in out.glob(p)} for p in (PATTERN, _WAITING))
    before = lying(out)
    waits = {}
    for number, (name, videos) in enumerate(plan.items()):
        watch(number, len(plan))
        if there.get(name) != videos:
            hidden = _hidden(name, videos)
            if waiting.get(hidden) != videos:
                _write(unfinished / name, videos, out, before)
                # Others may still be made from the one that has the name.
                os.replace(unfinished / name, out / (hidden if name in there else name))
            if (out / hidden).exists():
                waits[name] = hidden
        _remove_files(videos, out)
    for name, hidden in waits.items():
        os.replace(out / hidden, out / name)
    for path in (*out.glob(PATTERN), *out.glob(_WAITING)):
        if path.name not in plan:
            path.unlink()
    watch(len(plan), len(plan))


def _hidden(name: str, videos: Iterable[Sample]) -> str:
    """A name that no other content has, so that what an earlier call left stays until it is needed no more."""
    digest = hashlib.sha256(b"\n".join(sample.facts for sample in videos)).hexdigest()
    return f".{name.removesuffix('.tar')}-{digest[:16]}.tar"


def _write(path: Path, videos: Sequence[Sample], out: Path, before: Mapping[str, Lying]) -> None:
    with path.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for sample in videos:
                with _opened(sample, out, before) as video:
                    hashing = _Hashing(video)
                    tar.addfile(_member(f"{sample.key}.mp4", sample.size), hashing)
                if hashing.digest.hexdigest() != sample.sha256:
                    raise Findings(
                        f"stopped: {out / sample.path}: is not what was written; remove it, and the same command does it anew"
                    )
                for suffix, content in (("cls", sample.label), ("json", sample.facts)):
                    tar.addfile(_member(f"{sample.key}.{suffix}", len(content)), io.BytesIO(content))
        file.flush()
        os.fsync(file.fileno())  # the files that are in it are removed next


def _opened(sample: Sample, out: Path, before: Mapping[str, Lying]) -> IO[bytes]:
    """The video's bytes, in a file of their own or in a shard that there was."""
    path = out / sample.path
    if path.is_file() and path.stat().st_size == sample.size:
        return path.open("rb")
    place = before[sample.path]
    file = (out / place.shard).open("rb")
    file.seek(place.offset)
    return file


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)  # of no time and nobody, so that the bytes are always the same
    member.size, member.mode = size, 0o644
    return member


def _remove_files(videos: Iterable[Sample], out: Path) -> None:
    folders: set[Path] = set()
    for sample in videos:
        path = out / sample.path
        path.unlink(missing_ok=True)
        folders.update(parent for parent in path.parents if parent != out and out in parent.parents)
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        with suppress(OSError):  # there is something else in it
            folder.rmdir()


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    if content is None:
        raise ValueError(f"{member.name} is no file")
    return content.read()


class _Hashing(io.RawIOBase):
    """Passes on what it reads, and hashes it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self.digest.update(block)
        return block
