"""The names of the written files, and the lists."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pytest

from videogn.dataset.columns import Entry
from videogn.dataset.manifest import Manifest
from videogn.preparation.prepare import Row, output_names, write_lists
from videogn.preparation.verify import Facts


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.mp4", "a/y.mkv", "a/z"], ["a/x.mp4", "a/y.mp4", "a/z.mp4"]),
        (["a/x.avi", "a/x.mp4"], ["a/x.avi.mp4", "a/x.mp4"]),
        (["a/x.avi", "a/x.mp4", "a/x.avi.mp4"], ["a/x.avi.2.mp4", "a/x.mp4", "a/x.avi.mp4"]),
        (["a/x.avi", "a/x.webm"], ["a/x.mp4", "a/x.webm.mp4"]),
        (["a/X.avi", "a/x.mp4"], ["a/X.avi.mp4", "a/x.mp4"]),  # one file where case does not count
        (["/data/a/x.mp4", "../b/y.mov", "./c//z.gif"], ["data/a/x.mp4", "up/b/y.mp4", "c/z.mp4"]),
        (["a/x.avi", "a/X.mp4/y.avi"], ["a/x.avi.mp4", "a/X.mp4/y.mp4"]),  # the folder has the name
        (["a.mp4", "a.mp4/b/c.mp4"], ["a.mp4.mp4", "a.mp4/b/c.mp4"]),
        (["a.b/x", "a, 'b' (1).tar.avi"], ["a.b/x.mp4", "a, 'b' (1).tar.mp4"]),
    ],
)
def test_names(paths: list[str], names: list[str]) -> None:
    assert output_names(paths) == names


def test_names_never_meet() -> None:
    paths = [
        "".join(parts)
        for parts in itertools.product(
            ("x", "X", "../x", "x.mp4/x", "x.avi.mp4/x"), ("", ".avi", ".MP4", ".mp4"), ("", ".mp4", ".2.mp4")
        )
    ]
    names = output_names(paths)
    folders = {str(folder).casefold() for name in names for folder in Path(name).parents}
    assert not folders & {name.casefold() for name in names}
    assert len({name.casefold() for name in names}) == len(paths)
    assert all(name.endswith(".mp4") and ".." not in name.split("/") for name in names)


def test_only_a_file_that_decodes_whole_is_listed_with_its_size(tmp_path: Path) -> None:
    """Of a partly broken video the file that was written is whole, the video itself is not."""
    partial = Facts(49, 10.0, 720, 1280, "h264", 5.0, 1000, "aa", "partial")
    written = Facts(49, 10.0, 256, 456, "h264", 4.9, 300, "bb", "ok")
    entry = Entry("a/x.avi", "a", "x", "train")
    manifest = Manifest(Path("/videos"), [entry], ("a", "b"))
    sizes = {}
    for name, row in {
        "verified": Row(entry, partial, "a/x.avi", partial, "", 1.0),
        "written": Row(entry, partial, "a/x.mp4", written, "", 1.0),
    }.items():
        (tmp_path / name).mkdir()
        write_lists([row], manifest, tmp_path / name, name == "written")
        with (tmp_path / name / "manifest.csv").open(newline="") as file:
            (line,) = csv.DictReader(file)
        sizes[name] = (line["path"], line["num_bytes"], line["height"], line["status"], line["sha256"], line["source_sha256"])
    assert sizes == {
        "verified": ("a/x.avi", "0", "720", "partial", "aa", "aa"),
        "written": ("a/x.mp4", "300", "256", "partial", "bb", "aa"),
    }
