"""Prepare the videos of a manifest in a folder: what is done already, the rest in parallel, and the lists of the result."""

from __future__ import annotations

import csv
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from videogn.dataset.columns import Entry
from videogn.dataset.manifest import Manifest
from videogn.dataset.shard_decoder import Place
from videogn.dataset.storage import is_address
from videogn.preparation.ledger import Ledger, written
from videogn.preparation.pack import Lying, lying, pack, sample_of
from videogn.preparation.pool import KillablePool
from videogn.preparation.transcode import Settings
from videogn.preparation.verify import OK, Facts
from videogn.types import Findings, InputError

WORK = "videogn.preparation.job:prepare_video"
COLUMNS = (
    *("path", "label", "video_id", "split", "group"),
    *("num_bytes", "num_frames", "fps", "height", "width", "codec", "duration_seconds"),
    *("sha256", "status", "source", "source_sha256"),
)
SHARD_COLUMNS = ("shard", "offset", "size")


@dataclass(frozen=True)
class Limits:
    """What the work may take.

    Args:
        num_workers: processes.
        deadline: seconds for a video.
        memory_bytes: that a process may hold.
        retry: do again what could not be used before.
    """

    num_workers: int
    deadline: float
    memory_bytes: int
    retry: bool = False


@dataclass(frozen=True)
class Row:
    """A video of the manifest and what became of it.

    Attributes:
        entry: as in the manifest.
        source: facts of the video; None where it cannot be used.
        file: the file to train on, relative to the folder or, where nothing was written, to the manifest's root.
        facts: of that file: of the written one, or the source's.
        reason: why it cannot be used; "" where it can.
        seconds: that it took.
        lying: where in a shard the file's bytes are; None for a file of its own.
    """

    entry: Entry
    source: Facts | None
    file: str
    facts: Facts | None
    reason: str
    seconds: float
    lying: Lying | None = None

    @property
    def is_usable(self) -> bool:
        return self.facts is not None


@dataclass(frozen=True)
class Progress:
    """How far the work is: videos."""

    total: int
    done: int
    done_before: int
    unusable: int


def output_names(paths: Sequence[str]) -> list[str]:
    """The file that each video becomes: its path with the suffix .mp4, or its whole name and .mp4 where that is another's.

    a/x.avi, a/x.mp4, a/y.mkv: a/x.avi.mp4, a/x.mp4, a/y.mp4. A folder has its name as well: a/x.avi, a/x.mp4/y.avi: a/x.avi.mp4,
    a/x.mp4/y.mp4. Names that differ by case alone count as the same. An absolute path loses its root, and ".." becomes "up".
    """
    inside = [_inside(path) for path in paths]
    names: dict[int, str] = {}
    taken = {folder for path in inside for folder in _folders(path.casefold())}
    # Those that keep their name go first, so that it does not depend on the order.
    for place in sorted(range(len(paths)), key=lambda place: not inside[place].endswith(".mp4")):
        path = inside[place]
        stem, suffix = os.path.splitext(path)
        candidates = chain([stem + ".mp4"] if suffix else [], [path + ".mp4"], (f"{path}.{number}.mp4" for number in count(2)))
        name = next(name for name in candidates if name.casefold() not in taken)
        taken.add(name.casefold())
        names[place] = name
    return [names[place] for place in range(len(paths))]


def _inside(path: str) -> str:
    parts = os.path.normpath(path).replace(os.sep, "/").lstrip("/").split("/")
    return "/".join("up" if part == ".." else part for part in parts)


def _folders(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def prepare(
    manifest: Manifest,
    out: Path,
    settings: Settings | None,
    limits: Limits,
    watch: Callable[[Progress], None],
    shard_bytes: int | None = None,
    watch_shards: Callable[[int, int], None] = lambda done, total: None,
    source_of: Callable[[str], tuple[dict[str, Any], Place]] | None = None,
) -> list[Row]:
    """Verify every video of a manifest, and with settings write it anew below `out`; packed into shards, if wanted.

    May be killed at any time: the same call does what is not done. A video is done when a line of the ledger says so for a
    source of this size and time of change, and what was written for it is there.

    Args:
        settings: None verifies only.
        watch: called at the start and after every video.
        shard_bytes: size of a shard; None for a file each.
        watch_shards: see `pack`.
        source_of: where in shards a video of the manifest lies, see `Shards.source`; None for files.

    Returns:
        A row for every video, in the manifest's order.

    Raises:
        InputError: `out` cannot be used, see `Ledger`, or holds the videos themselves; a video is a folder of images.
        Findings: the disk is full, or the folder cannot be written any more; or shards cannot be read; all that was done is kept.
    """
    entries = list(manifest.entries)
    paths = list(dict.fromkeys(entry.path for entry in entries))
    sources = {path: f"{manifest.place}/{path}" for path in paths}
    shards = {path: source_of(path) for path in paths} if source_of is not None else {}
    _check_apart(out, (Path(source) for source in sources.values() if not is_address(source)))
    stamps = {path: _stamp_in_shard(shards[path][1]) if shards else _stamp(Path(source)) for path, source in sources.items()}
    outputs: dict[str, str | None] = dict.fromkeys(paths)
    if settings is not None:
        outputs = dict(zip(paths, output_names(paths), strict=True))
    identity = {"verify_only": settings is None, **(asdict(settings) if settings is not None else {})}
    if shard_bytes is not None:
        identity["shard_size"] = shard_bytes
    with Ledger(out, identity) as ledger, _unfinished(out) as unfinished:
        why = "could not be prepared, and is in none of the shards" if shards else "no such file"
        unreadable = {path: why for path in paths if stamps[path] is None}
        keys = {path: {"path": path, "output": outputs[path], **(stamps[path] or {})} for path in paths}
        packed = lying(out) if shard_bytes is not None else {}
        open_paths = [
            path
            for path in paths
            if path not in unreadable and not _is_done(ledger.records.get(path), keys[path], out, limits.retry, packed)
        ]
        before = len(paths) - len(open_paths)
        unusable = len(unreadable) + sum(
            1 for path in set(paths) - set(open_paths) if path not in unreadable and ledger.records[path]["reason"]
        )
        watch(Progress(len(paths), before, before, unusable))
        tasks = [
            {
                "path": sources[path],
                "out": None if settings is None else str(out.absolute() / str(outputs[path])),
                "unfinished": str(unfinished.absolute()),
                "settings": identity if settings is None else asdict(settings),
                "shard": shards.get(path),
            }
            for path in open_paths
        ]
        done = before
        with KillablePool(WORK, limits.num_workers, limits.deadline, limits.memory_bytes) as pool:
            for number, outcome in pool.run(tasks):
                path = open_paths[number]
                answer = outcome.answer or {"reason": outcome.reason}
                if "away" in answer:
                    raise Findings(f"stopped: {answer['away']}; {_kept(done, len(paths))}")
                record = {
                    **keys[path],
                    "source": answer.get("source"),
                    "written": answer.get("written"),
                    "reason": answer.get("reason", ""),
                    "seconds": round(outcome.seconds, 3),
                }
                try:
                    if "stop" in answer:
                        raise OSError(0, answer["stop"])
                    ledger.add(record)
                except OSError as error:
                    raise _stopped(out, error, done, len(paths)) from None
                done, unusable = done + 1, unusable + bool(record["reason"])
                watch(Progress(len(paths), done, before, unusable))
        rows = [_row(entry, ledger.records.get(entry.path, {}), unreadable.get(entry.path)) for entry in entries]
        if shard_bytes is None:
            return rows
        try:
            return _packed(rows, manifest.classes, out, unfinished, shard_bytes, watch_shards)
        except OSError as error:
            raise _stopped(out, error, done, len(paths)) from None


def _packed(
    rows: Sequence[Row],
    classes: Sequence[str],
    out: Path,
    unfinished: Path,
    shard_bytes: int,
    watch: Callable[[int, int], None],
) -> list[Row]:
    first: dict[str, Row] = {}
    for row in rows:
        if row.facts is not None:
            first.setdefault(row.file, row)
    samples = [sample_of(file, row.entry, row.facts, classes) for file, row in first.items() if row.facts is not None]
    pack(samples, out, unfinished, shard_bytes, watch)
    places = lying(out)
    return [replace(row, lying=places[row.file]) if row.is_usable else row for row in rows]


def unlisted(rows: Sequence[Row], out: Path) -> list[str]:
    """Files below `out` that were written for videos which are no longer there, or cannot be used any more: no list has them."""
    listed = {row.file for row in rows if row.is_usable}
    return sorted(name for name in written(out) if name not in listed and (out / name).is_file())


def write_lists(rows: Sequence[Row], manifest: Manifest, out: Path, is_written: bool, in_shards: bool = False) -> None:
    """manifest.csv of the videos to use, quarantine.csv of the others, classes.txt; each whole or as it was before.

    A video of val or test that cannot be used stays in the manifest, under its absolute path and with num_bytes 0: it counts as
    a wrong answer. Among shards it has its path in the data set, and lies in none.

    Args:
        is_written: whether the files to use are the written ones.
        in_shards: whether they were packed.

    Raises:
        OSError: they cannot be written.
    """
    root = manifest.root if is_written and not in_shards else None
    listed = (_manifest_row(row, root, in_shards) for row in rows if row.is_usable or row.entry.split != "train")
    quarantined = ((row.entry.path, row.reason, f"{row.seconds:.2f}") for row in rows if not row.is_usable)
    _write_csv(out / "manifest.csv", (*COLUMNS, *SHARD_COLUMNS) if in_shards else COLUMNS, listed)
    _write_csv(out / "quarantine.csv", ("path", "reason", "seconds"), quarantined)
    with replacing(out / "classes.txt") as file:
        file.write("".join(f"{name}\n" for name in manifest.classes))


@contextmanager
def replacing(path: Path) -> Iterator[Any]:
    """A text file to write, which takes the place of `path` when it is whole."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            yield file
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with replacing(path) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _manifest_row(row: Row, root: Path | str | None, in_shards: bool) -> list[Any]:
    """Args: root: that an unusable video is found from; None: its path stays as it is."""
    entry, facts, source = row.entry, row.facts, row.source
    known = entry.label, entry.video_id, entry.split, entry.group
    lies = (row.lying.shard, row.lying.offset, row.lying.size) if row.lying is not None else [""] * len(SHARD_COLUMNS)
    if facts is None:
        path = entry.path if root is None else str(Path(root, entry.path).absolute())
        listed = [path, *known, 0, *[""] * 7, row.reason, entry.path, ""]
    else:
        assert source is not None
        listed = [
            *(row.file, *known),
            *(facts.num_bytes if facts.status == OK else 0, facts.num_frames),
            *(facts.fps, facts.height, facts.width, facts.codec, facts.duration_seconds, facts.sha256, source.status, entry.path),
            source.sha256,
        ]
    return [*listed, *lies] if in_shards else listed


def _row(entry: Entry, record: Mapping[str, Any], unreadable: str | None) -> Row:
    if unreadable is not None or record["source"] is None:
        return Row(entry, None, entry.path, None, unreadable or record["reason"], record.get("seconds", 0.0))
    source = Facts(**record["source"])
    written = source if record["written"] is None else Facts(**record["written"])
    return Row(entry, source, record["output"] or entry.path, written, "", record["seconds"])


def _check_apart(out: Path, sources: Iterable[Path]) -> None:
    folder = out.resolve()
    parents = {source.parent for source in sources}
    for parent in parents:
        if parent.resolve().is_relative_to(folder):
            raise InputError(f"out: {out}: holds the videos of the data set ({parent}); give a folder of its own with out=")


@contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
    """Where files grow: empty at the start, and gone at the end unless killed."""
    folder = out / ".unfinished"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
    except OSError as error:
        raise _stopped(out, error, 0, 0) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stamp(path: Path) -> dict[str, int] | None:
    """What tells a file from a later one of its name."""
    try:
        found = path.stat()
    except OSError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path}: is a folder; prepare reads video files, and folders of images are trained on as they are")
    return {"source_bytes": found.st_size, "source_mtime_ns": found.st_mtime_ns}


def _stamp_in_shard(place: Place) -> dict[str, int | str] | None:
    return {"source_bytes": place.size, "source_sha256": place.sha256} if place.size else None


def _is_done(
    record: Mapping[str, Any] | None, key: Mapping[str, Any], out: Path, retry: bool, packed: Mapping[str, Lying]
) -> bool:
    if record is None or any(record.get(name) != value for name, value in key.items()):
        return False
    if record["reason"]:
        return not retry
    if record["written"] is None:
        return True
    if (place := packed.get(record["output"])) is not None and place.sha256 == record["written"]["sha256"]:
        return True
    try:
        return (out / record["output"]).stat().st_size == record["written"]["num_bytes"]
    except OSError:
        return False


def _stopped(out: Path, error: OSError, done: int, total: int) -> Findings:
    return Findings(
        f"stopped: {out} cannot be written: {error.strerror}; {_kept(done, total)}: make room, and the same command goes on"
    )


def _kept(done: int, total: int) -> str:
    return f"{done:,} of {total:,} videos are done and kept"
