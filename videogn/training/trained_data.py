"""The data that a run was trained with, kept in its folder: a later command sees whether its own are the same.

A division that is drawn moves when a video is added: what was trained on may then be tested.
"""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

from videogn.dataset.columns import Entry
from videogn.dataset.manifest import Manifest
from videogn.training.checkpoint import Checkpoint
from videogn.types import InputError

NAME = "manifest.csv"


def kept_list(checkpoint: Checkpoint) -> Path:
    return checkpoint.path.absolute().parent.parent / NAME


def kept_data(checkpoint: Checkpoint) -> Manifest | None:
    """The data that the checkpoint was trained with; None where its run folder does not list them."""
    list_path = kept_list(checkpoint)
    try:
        with list_path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.reader(file))[1:]
        # A list from before there were groups has five columns.
        entries = [Entry(path, label, video, split, int(size), *group) for path, label, video, split, size, *group in rows]
        manifest = Manifest(list_path.parent, entries, checkpoint.classes)
    except (OSError, ValueError, csv.Error):
        return None
    # A .ckpt may have been moved to where another list lies.
    return manifest if manifest.sha256() == checkpoint.manifest_sha256 else None


def refuse_other_data(checkpoint: Checkpoint, manifest: Manifest) -> None:
    """Raises InputError where a run would go on with other data than it began with. An old run does not say with which."""
    if checkpoint.manifest_sha256 in (None, manifest.sha256()):
        return
    kept = kept_data(checkpoint)
    # With a video of train gone, the list of the run is no longer what it trains on.
    # The list of a run does not say where in a shard a video lies.
    in_files = isinstance(manifest.root, Path)
    listed = in_files and kept is not None and not any(entry.split == "train" for entry in _gone(kept, manifest))
    remedy = f", or go on with the list of the run: {_arguments(checkpoint, kept, manifest)}" if kept and listed else ""
    raise InputError(
        f"resume: {checkpoint.path}: the data are not those that it was trained with: {_difference(kept, manifest)}; bring those "
        f"back{remedy}, or start another run"
    )


def refuse_other_devices(path: Path | None, before: int, now: int) -> None:
    """Raises InputError where a run would go on over more or fewer devices: its batches and its steps are of their number.

    Args:
        path: of the checkpoint.
        before: `Checkpoint.num_processes`.
        now: one a device.
    """
    if before not in (0, now):
        raise InputError(
            f"resume: {path}: the run is of {before} device{'s' if before > 1 else ''}, and here are {now}; give as many again "
            "(trainer.devices, trainer.num_nodes), or start another run"
        )


def trained_on(trained: Manifest, tested: Manifest) -> list[str]:
    """Paths of the tested videos that have the path or the video_id of one that was trained on."""
    train = trained.split("train").entries
    paths, recordings = {entry.path for entry in train}, {entry.video_id for entry in train}
    return [entry.path for entry in tested.entries if entry.path in paths or entry.video_id in recordings]


def compared(checkpoint: Checkpoint, manifest: Manifest, tested: Manifest) -> tuple[str, int | None]:
    """What to warn of where a checkpoint is tested, "" where of nothing; and how many of the tested videos it was trained on.

    Args:
        manifest: of all splits; `tested`: the split that is scored.

    Returns:
        The number is None where the run does not say what it was trained on.
    """
    if checkpoint.manifest_sha256 is None:
        return "", None
    if checkpoint.manifest_sha256 == manifest.sha256():
        return "", len(trained_on(manifest, tested))
    kept = kept_data(checkpoint)
    differ = f"warning: the data are not those that the run was trained with: {_difference(kept, manifest)}"
    if kept is None:
        return f"{differ}; the videos tested may be among those trained on", None
    seen = trained_on(kept, tested)
    if not seen:
        return f"{differ}; none of the {len(tested):,} videos tested was trained on", 0
    remedy = f": {_arguments(checkpoint, kept, manifest)} divides as the run did" if isinstance(manifest.root, Path) else ""
    return (
        f"{differ}; {len(seen):,} of the {len(tested):,} videos tested have the path or video_id of one that was trained on, "
        f"such as {seen[0]!r}, which flatters the score{remedy}"
    ), len(seen)


def _arguments(checkpoint: Checkpoint, kept: Manifest, manifest: Manifest) -> str:
    words = ["dataset=manifest", f"dataset.path={kept_list(checkpoint)}", f"dataset.root={manifest.place}"]
    if _gone(kept, manifest):
        words.append("dataset.missing=wrong")
    return shlex.join(words)


def _gone(kept: Manifest, now: Manifest) -> list[Entry]:
    """The videos of the run whose files are not there any more."""
    listed = {entry.path for entry in now.entries}
    return [entry for entry in kept.entries if entry.path not in listed and not Path(f"{now.root}/{entry.path}").exists()]


def _difference(then: Manifest | None, now: Manifest) -> str:
    """The numbers of videos, and the first video that is not what it was."""
    if then is None:
        return f"{NAME} of its run folder, which lists those, is not there"
    old, new = ({entry.path: entry for entry in manifest.entries} for manifest in (then, now))
    counts = f"{len(then):,} videos then, {len(now):,} now; "
    for path in dict.fromkeys([*old, *new]):
        before, after = old.get(path), new.get(path)
        if before is None or after is None:
            return counts + f"{path!r} is {'gone' if after is None else 'new'}"
        for column in ("split", "label", "video_id"):
            was, became = getattr(before, column), getattr(after, column)
            if was != became:
                return counts + f"{column} of {path!r} was {was}, and is {became}"
    return counts + "the order of the videos or the classes is another"
