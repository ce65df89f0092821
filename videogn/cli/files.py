"""The command line of the commands that take file names, which must never pass through Hydra's grammar."""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from videogn.dataset.files import files_below
from videogn.dataset.frames import is_image
from videogn.dataset.manifest import VIDEO_SUFFIXES
from videogn.types import InputError


class FilesParser(argparse.ArgumentParser):
    """Positional paths and --flags, in any order with parse_intermixed_args; what it does not take is an InputError.

    Args:
        command: `predict` of `videogn predict`.
    """

    def __init__(self, command: str, **options: Any) -> None:
        super().__init__(f"videogn {command}", **options)
        self._command = command

    def error(self, message: str) -> NoReturn:
        remedy = f"a file name with a leading dash goes behind --; see `videogn {self._command} --help`"
        raise InputError(f"{self._command}: {message}; {remedy}")


def named_videos(command: str, names: Sequence[str]) -> list[str]:
    """The videos that a command line names, as often and in the order in which it names them.

    A name is a file; a folder, for all videos below it, or where it has none for all folders of images; `-`, for the names that
    standard input lists, one a line; or, where there is no such file, a glob pattern, for what it matches. A file that is not
    there stands for itself: whoever opens it will say so.

    Raises:
        InputError: an empty name, a folder without videos, a pattern without matches, an empty list, or `-` twice.
    """
    if list(names).count("-") > 1:
        raise InputError(f"{command}: - stands there twice; standard input is read once")
    found = []
    for name in names:
        if name == "-":
            for line in _listed(command):
                found += _below(command, line)
        elif glob.has_magic(name) and not os.path.lexists(name):
            found += _matching(command, name)
        else:
            found += _below(command, name)
    return found


def _listed(command: str) -> list[str]:
    """The names on standard input; their bytes need not be UTF-8."""
    if sys.stdin is None:
        raise InputError(f"{command}: -: standard input is closed; give a list, one path a line")
    content = sys.stdin.buffer.read()
    # As `find -print0` ends names; no name holds such a byte.
    lines = content.split(b"\0") if b"\0" in content else [line.removesuffix(b"\r") for line in content.split(b"\n")]
    names = [os.fsdecode(line) for line in lines if line.strip()]
    if not names:
        raise InputError(f"{command}: -: no path on standard input; give one a line")
    return names


def _matching(command: str, pattern: str) -> Iterator[str]:
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise InputError(f"{command}: {pattern}: no such file, and no file matches it as a pattern; correct the path")
    files = [name for name in matches if not os.path.isdir(name)]
    # `clips/*` is the folders in clips too, and what they hold; `clips/**` has matched that already.
    below = [name for folder in matches if os.path.isdir(folder) for name in _videos_below(folder)]
    if not files and not below:
        raise InputError(f"{command}: {pattern}: no video file in the folders that it matches ({_suffixes()}), and no image")
    yield from dict.fromkeys(os.path.normpath(name) for name in (*files, *below))


def _below(command: str, name: str) -> list[str]:
    """The file, or the videos below the folder."""
    if not name:
        raise InputError(f"{command}: an empty file name; give a file or a folder")
    if not os.path.isdir(name):
        return [name]
    videos = _videos_below(name)
    if not videos:
        raise InputError(f"{command}: {name}: no video file in this folder ({_suffixes()}), and no image")
    return videos


def _videos_below(folder: str) -> list[str]:
    """Video files; where there are none, the folders that hold images, each of which is a video."""
    found = list(files_below(Path(folder)))
    videos = [str(inside / name) for inside, names in found for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES]
    return sorted(videos or (str(inside) for inside, names in found if any(map(is_image, names))))


def _suffixes() -> str:
    return ", ".join(sorted(VIDEO_SUFFIXES))
