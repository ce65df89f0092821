"""Which files are there, and which names are one file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from videogn.types import InputError


def identities(root: Path, paths: Iterable[str]) -> list[str | None]:
    """What file or folder each path is, links followed: equal where two paths lead to one; None where there is none.

    A folder is listed once: quicker than a look per file.
    """
    listed: dict[str, dict[str, str]] = {}
    found: list[str | None] = []
    for path in paths:
        folder, _, name = path.rstrip("/").rpartition("/")
        if folder not in listed:
            listed[folder] = _contents(root / folder if folder or not path.startswith("/") else Path("/"))
        found.append(listed[folder].get(name))
    return found


def first_names(root: Path, paths: Sequence[str]) -> list[str]:
    """For each path the first of those that lead to its file."""
    first: dict[str, str] = {}
    return [first.setdefault(file or path, path) for file, path in zip(identities(root, paths), paths, strict=True)]


def _contents(folder: Path) -> dict[str, str]:
    try:
        place = os.path.realpath(folder)
        with os.scandir(folder) as found:
            # A link may lead nowhere.
            return {
                e.name: os.path.realpath(e.path) if e.is_symlink() else f"{place}/{e.name}"
                for e in found
                if not e.is_symlink() or os.path.exists(e.path)
            }
    except OSError:
        return {}


def folders(parent: Path, around: Iterable[Path] = ()) -> list[Path]:
    """Those in a folder, in order, links to folders too; not hidden ones, nor a link back to one of `around`."""
    outside = {_number(folder) for folder in around}
    return [Path(e.path) for e in listing(parent) if _is_searched(e) and _number(e.path) not in outside]


def files_below(top: Path, around: Iterable[Path] = ()) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names of its files) of `top` and all below, links followed, in order: each folder once, so that loops end.

    A folder goes by its own name before that of a link. Files of which only a link is left are none.

    Args:
        around: folders that are not entered, since they hold `top`.

    Raises:
        InputError: a folder that cannot be read.
    """
    seen = {_number(folder) for folder in around}
    waiting, links = [top], []
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        number = _number(folder)
        if number in seen:
            continue
        seen.add(number)
        entries = listing(folder)
        yield folder, [e.name for e in entries if _is_file(e)]
        inside = [e for e in entries if _is_searched(e)]
        waiting += [Path(e.path) for e in reversed(inside) if not e.is_symlink()]
        links += [Path(e.path) for e in inside if e.is_symlink()]


def listing(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot read the folder: {error.strerror}; correct the path or its permissions") from None


def _is_searched(entry: os.DirEntry[str]) -> bool:
    # The folder lost+found of a disk is its owner's.
    return _is_dir(entry) and not entry.name.startswith(".") and entry.name != "lost+found"


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # links that lead in a circle
        return False


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _number(folder: str | Path) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino
