"""videogn prepare"""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from videogn.cli.data import bad_fraction, read_data, write_missing
from videogn.cli.stop import stopped_by_sigterm
from videogn.cli.values import bytes_of, check_counts
from videogn.configuration import run_application
from videogn.dataset.class_folder import ClassFolder
from videogn.dataset.manifest import Manifest
from videogn.dataset.published import PublishedSet
from videogn.number import is_count, is_positive
from videogn.preparation.doctor import examine, printable, tables
from videogn.preparation.prepare import Limits, Progress, Row, prepare, replacing, unlisted, write_lists
from videogn.preparation.transcode import Settings
from videogn.types import Findings, InputError, Stopped

_SECONDS_PER_LINE = 10.0  # where no terminal watches
_WRITING = ("short_side", "crf", "gop", "preset", "target_fps", "frame_stride")


def run(arguments: Sequence[str]) -> int:
    return run_application("prepare", arguments, run_prepare)


def run_prepare(config: DictConfig) -> int:
    """Verify, write anew, list, and report."""
    for key in ("verify_only", "retry"):
        if not isinstance(config[key], bool):
            raise InputError(f"{key}={config[key]}: give true or false")
    check_counts(config, ("memory_limit", "clip_frames"))
    deadline = config.deadline
    if not is_positive(deadline):
        raise InputError(f"deadline={deadline}: give seconds above 0")
    num_workers = (os.cpu_count() or 1) if config.num_workers is None else config.num_workers
    if not is_count(num_workers, 1, 1024):
        raise InputError(f"num_workers={num_workers}: give a whole number of processes from 1 to 1024, or null for one a CPU")
    written = Settings(**{key: config[key] for key in _WRITING})
    shard_bytes = None if config.shard_size is None else bytes_of("shard_size", config.shard_size)
    if shard_bytes is not None and (shard_bytes < 1 or config.verify_only):
        rule = "verify_only=true writes no videos that could be packed" if shard_bytes else "a shard has at least one byte"
        raise InputError(f"shard_size={config.shard_size}: {rule}; give a size as 1GB, or null for a file each")
    max_bad_fraction = bad_fraction(config.dataset)
    dataset, manifest = read_data(config.dataset)
    out = Path(config.out)
    _check_not_searched(out, dataset, manifest)
    limits = Limits(num_workers, deadline, config.memory_limit * 2**20, config.retry)
    console = Console(stderr=True, highlight=False)
    start = time.monotonic()
    progress = _Watch(console, manifest.notes)
    try:
        with stopped_by_sigterm(""), progress:
            rows = prepare(
                manifest,
                out,
                None if config.verify_only else written,
                limits,
                progress.show,
                shard_bytes,
                progress.show_shards,
                getattr(dataset, "source", None),
            )
    except (KeyboardInterrupt, Stopped) as stop:
        signum = stop.signum if isinstance(stop, Stopped) else signal.SIGINT
        raise Stopped(signum, f"{progress.told()}; the same command goes on") from None
    left = unlisted(rows, out)
    report = examine(rows, manifest.classes, unlisted=left, clip_frames=config.clip_frames, max_bad_fraction=max_bad_fraction)
    (out / "missing.csv").unlink(missing_ok=True)  # of an earlier run
    try:
        write_lists(rows, manifest, out, not config.verify_only, shard_bytes is not None)
        with replacing(out / "doctor.json") as file:
            json.dump(report, file, indent=1)
        write_missing(manifest, out)
    except OSError as error:
        (out / "missing.csv").unlink(missing_ok=True)
        raise Findings(
            f"stopped: {out}: its lists cannot be written: {error.strerror}; make room, and the same command goes on"
        ) from None
    _print(report, rows, out, progress.last, time.monotonic() - start)
    print(printable(_next_command(config, dataset.flip, manifest, rows, out)))
    if report["findings"]:
        count = len(report["findings"])
        raise Findings(f"{count} finding{'s' if count > 1 else ''} would spoil a score; {out / 'doctor.json'} names the videos")
    return 0


class _Watch:
    """A bar while a terminal watches; else a line now and then. Both with the rate and the time left."""

    def __init__(self, console: Console, notes: Sequence[str]) -> None:
        self._notes = notes
        self.last = Progress(0, 0, 0, 0)
        self._console = console
        self._start = self._spoken = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"))
        self._bars = Bars(*columns, TimeRemainingColumn(), console=console) if console.is_terminal else None
        self._bar = self._bars.add_task("prepare", total=None, facts="") if self._bars is not None else None

    def __enter__(self) -> _Watch:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, progress: Progress) -> None:
        if not self.last.total:
            self._start = self._spoken = time.monotonic()
            for note in self._notes:  # not before a line of error
                self._console.print(note, markup=False, soft_wrap=True)
            if progress.done_before:
                self._console.print(f"{progress.done_before:,} of {progress.total:,} videos were done before", highlight=False)
        self.last, now = progress, time.monotonic()
        done = progress.done - progress.done_before
        rate = done / max(now - self._start, 1e-9)
        facts = f"{rate:.2f} videos/s" + (f", {progress.unusable:,} unusable" if progress.unusable else "")
        if self._bars is not None:
            assert self._bar is not None
            self._bars.update(self._bar, total=progress.total, completed=progress.done, facts=facts)
        elif done and now - self._spoken >= _SECONDS_PER_LINE and progress.done < progress.total:
            self._spoken = now
            left = time.strftime("%H:%M:%S", time.gmtime((progress.total - progress.done) / rate))
            self._console.print(f"prepared {progress.done:,}/{progress.total:,}  {facts}  {left} left", soft_wrap=True)

    def show_shards(self, done: int, total: int) -> None:
        """As videos are packed, which takes as long as copying them."""
        now = time.monotonic()
        if self._bars is not None:
            assert self._bar is not None
            self._bars.update(self._bar, total=total, completed=done, description="pack", facts="shards")
        elif done == total or now - self._spoken >= _SECONDS_PER_LINE:
            self._spoken = now
            self._console.print(f"packed {done:,} of {total:,} shards", soft_wrap=True)

    def told(self) -> str:
        return f"{self.last.done:,} of {self.last.total:,} videos are done and kept"


def _check_not_searched(out: Path, dataset: Any, manifest: Manifest) -> None:
    """A data set that finds its videos by searching its root would find the prepared ones the next time."""
    if isinstance(dataset, (ClassFolder, PublishedSet)) and out.resolve().is_relative_to(Path(manifest.root).resolve()):
        raise InputError(
            f"out: {out}: lies in dataset.root ({manifest.root}), which is searched for videos; give a folder outside"
        )


def _print(report: Mapping[str, Any], rows: Sequence[Row], out: Path, progress: Progress, seconds: float) -> None:
    console = Console(highlight=False)
    for part in tables(report):
        if isinstance(part, str):
            console.print(printable(part), markup=False, soft_wrap=True)
        else:
            console.print(part)
    before, after = (
        sum(f.num_bytes for f in facts if f is not None) for facts in zip(*((r.source, r.facts) for r in rows), strict=True)
    )
    sizes = f"{before / 1e6:,.1f} MB" + (f" became {after / 1e6:,.1f} MB" if after != before else "")
    done = progress.done - progress.done_before
    usable = f"{report['num_usable']:,} of {report['num_videos']:,} videos can be used, {report['num_partial']:,} of them partial"
    print(f"{usable}; {sizes}; {done:,} done now in {seconds:.1f} s")
    print(printable(f"manifest: {out / 'manifest.csv'}"))


def _next_command(config: DictConfig, flip: float, manifest: Manifest, rows: Sequence[Row], out: Path) -> str:
    """What trains on the result."""
    flips = [f"dataset.flip={flip}"] if flip != 0.5 else []
    if config.shard_size is not None:
        words = ["dataset=shards", f"dataset.root={out}", *flips]
    elif config.verify_only and isinstance(manifest.root, str):  # shards, which are trained on as they are
        words = ["dataset=shards", f"dataset.root={manifest.root}", *flips]
    else:
        words = [
            "dataset=manifest",
            f"dataset.path={out / 'manifest.csv'}",
            *([f"dataset.root={manifest.place}"] if config.verify_only else []),
            f"dataset.classes={out / 'classes.txt'}",
            *flips,
            *(["dataset.missing=wrong"] if any(r.reason == "no such file" and r.entry.split != "train" for r in rows) else []),
        ]
    return f"train on it: videogn train {shlex.join(words)}"
