"""What a prediction leaves in files: whole or not at all, and never in the place of a video."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from videogn.prediction.timeline import Timeline
from videogn.types import InputError
from videogn.whole import whole


def check_file(flag: str, path: Path, suffixes: Collection[str]) -> None:
    """Raises InputError where no such file can be written."""
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{flag} {path}: the file's name must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise InputError(f"{flag} {path}: a folder; give the name of a file")
    _check_writable(flag, path, path.parent)


def check_folder(flag: str, path: Path) -> None:
    """Raises InputError where no file can be written into such a folder; it need not be there yet, its parent must."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{flag} {path}: a file; give a folder")
    _check_writable(flag, path, path if path.exists() else path.absolute().parent)


def run_folder(model: Path) -> Path | None:
    """The run folder that a model is, or that its checkpoint or artifact lies in; None where there is none."""
    if model.is_dir():
        return model
    above = model.absolute().parent.parent
    return above if (above / "config.yaml").is_file() and (above / "checkpoint").is_dir() else None


def check_apart(outputs: Sequence[Path], inputs: Iterable[str | Path]) -> None:
    """Raises InputError where two outputs are one file, or one would replace what is read."""
    read = {os.path.realpath(path) for path in inputs}
    written: set[str] = set()
    for output in outputs:
        place = os.path.realpath(output)
        if place in read:
            raise InputError(f"predict: {output}: would replace a file that is read; give another place")
        if place in written:
            raise InputError(f"predict: {output}: would be written twice; give each flag a place of its own")
        written.add(place)


def output_names(paths: Sequence[str]) -> dict[str, Path]:
    """For each video a relative path without suffix, which no other has.

    It keeps the tree below the folder that all of them lie in. Where two differ in their suffix alone, the suffix stays in the
    name.

        a/x.mp4 a/y.mp4       x, y
        a/x.mp4 a/b/x.mp4     x, b/x
        a/x.mp4 a/x.avi       x.mp4, x.avi
    """
    places = {path: Path(os.path.abspath(path)) for path in paths}
    if not places:
        return {}
    common = Path(os.path.commonpath([place.parent for place in places.values()]))
    relative = {path: place.relative_to(common) for path, place in places.items()}
    stems: dict[Path, set[Path]] = {}
    for name in relative.values():
        stems.setdefault(name.with_suffix(""), set()).add(name)
    names: dict[Path, Path] = {}
    taken: set[Path] = set()
    for name in dict.fromkeys(relative.values()):
        short = name.with_suffix("") if len(stems[name.with_suffix("")]) == 1 else name
        number = 1
        while (free := short if number == 1 else short.with_name(f"{short.name}-{number}")) in taken:
            number += 1
        names[name] = free
        taken.add(free)
    return {path: names[name] for path, name in relative.items()}


def write_timelines(path: Path, found: Iterable[tuple[str, str | None, Timeline | None]]) -> None:
    """Write (path, error, timeline) of each video, as JSON or CSV by the suffix of `path`.

    The bytes of a path that is no UTF-8 stand in a CSV as they are, and in JSON as an escape that Python turns back into them.
    """
    if path.suffix.lower() == ".json":
        nothing: dict[str, Any] = {"duration_seconds": None, "windows": [], "segments": []}
        entries = [{"path": p, **(nothing if t is None else t.as_dict()), "error": error} for p, error, t in found]
        with whole(path) as unfinished:
            unfinished.write_text(json.dumps(entries, indent=2, ensure_ascii=False), "utf-8", "backslashreplace")
        return
    with whole(path) as unfinished, open(unfinished, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "kind", "start_seconds", "end_seconds", "label", "probability"])
        for name, _, timeline in found:
            if timeline is not None:
                table.writerows([name, "window", w.start_seconds, w.end_seconds, *w.top[0]] for w in timeline.windows)
                table.writerows([name, "segment", *segment] for segment in timeline.segments)


def write_features(path: Path, paths: Sequence[str], rows: Sequence[Float32[np.ndarray, " D"] | None]) -> None:
    """Write `paths` (V) and `features` (V, D); rows of NaN where there are none. One row at least is there."""
    width = next(len(row) for row in rows if row is not None)
    features = np.stack([np.full(width, np.nan, np.float32) if row is None else row for row in rows])
    with whole(path) as unfinished:
        np.savez(unfinished, paths=np.array(paths), features=features)


def _check_writable(flag: str, path: Path, folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(prefix=".videogn-", dir=folder):
            pass
    except FileNotFoundError:
        raise InputError(f"{flag} {path}: there is no folder {folder}; make it, or give another place") from None
    except OSError as error:
        raise InputError(f"{flag} {path}: cannot be written: {error.strerror}; give another place") from None
