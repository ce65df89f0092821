"""Files that are whole or not there, names that no two videos share, tables that read back."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from videogn.prediction.output import check_apart, check_file, check_folder, output_names, whole, write_features, write_timelines
from videogn.prediction.timeline import Timeline
from videogn.types import InputError


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a.txt").write_text("before")

    def interrupted(name: str) -> None:
        with whole(tmp_path / name) as unfinished:
            unfinished.write_text("half")
            raise error

    for name in ("a.txt", "b.txt"):
        with pytest.raises(error):
            interrupted(name)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.txt": "before"}
    with whole(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("after")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.txt": "after"}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.mp4"], ["x"]),
        (["a/x.mp4", "a/y.mp4"], ["x", "y"]),
        (["a/x.mp4", "a/b/x.mp4"], ["x", "b/x"]),
        (["a/c/x.mp4", "a/b/x.mp4"], ["c/x", "b/x"]),
        (["a/x.mp4", "a/x.avi"], ["x.mp4", "x.avi"]),
        (["x.avi", "x.mp4", "x.avi.mp4"], ["x.avi", "x.mp4", "x.avi-2"]),
        (["a/x.mp4", "./a/x.mp4", "a/../a/x.mp4"], ["x", "x", "x"]),
        (["/a/x.mp4", "/b/x.mp4"], ["a/x", "b/x"]),
        ([], []),
    ],
)
def test_names_keep_the_tree_and_never_meet(paths: list[str], names: list[str]) -> None:
    assert list(output_names(paths).items()) == list(zip(paths, map(Path, names), strict=True))


def test_outputs_replace_no_input_and_no_other_output(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    os.symlink(tmp_path / "v.mp4", tmp_path / "link.mp4")
    check_apart([tmp_path / "out.mp4", tmp_path / "out.png"], [tmp_path / "v.mp4"])
    for output in ("v.mp4", "link.mp4", "./x/../v.mp4"):
        with pytest.raises(InputError, match="would replace a file that is read"):
            check_apart([tmp_path / output], [str(tmp_path / "v.mp4")])
    with pytest.raises(InputError, match="would be written twice"):
        check_apart([tmp_path / "a.mp4", tmp_path / "b" / ".." / "a.mp4"], [])


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    for path, message in (
        ("x.txt", r"--timeline .*x\.txt: the file's name must end in \.json or \.csv"),
        ("gone/x.json", r"--timeline .*x\.json: there is no folder .*gone; make it"),
        ("file/x.json", r"--timeline .*x\.json: cannot be written: Not a directory"),
        ("folder.json", r"--timeline .*folder\.json: a folder; give the name of a file"),
        ("/proc/x.json", r"--timeline /proc/x\.json: (cannot be written|there is no folder)"),
    ):
        with pytest.raises(InputError, match=message):
            check_file("--timeline", tmp_path / path, (".json", ".csv"))
    check_file("--timeline", tmp_path / "x.JSON", (".json", ".csv"))
    for path, message in (("gone/why", "there is no folder"), ("file", "a file; give a folder")):
        with pytest.raises(InputError, match=message):
            check_folder("--explain", tmp_path / path)
    check_folder("--explain", tmp_path / "why")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.json"]


def timeline() -> Timeline:
    rows = np.array([[0.9, 0.1], [0.25, 0.75]], np.float32)
    return Timeline.of(np.array([0.0, 1.5]), np.array([2.0, 3.0]), rows, 3.0, ('a, "b"', "ü\udce9"))


def test_tables_read_back(tmp_path: Path) -> None:
    found = [('odd, "name" \udce9 ü.mp4', None, timeline()), ("bad.mp4", "no such file", None)]
    write_timelines(tmp_path / "t.json", found)
    entries = json.loads((tmp_path / "t.json").read_text("utf-8"))
    assert entries[0]["path"] == found[0][0]
    assert entries[0]["duration_seconds"] == 3.0
    assert [s["label"] for s in entries[0]["segments"]] == ['a, "b"', "ü\udce9"]
    assert entries[0]["windows"][1]["top"][0] == {"label": "ü\udce9", "probability": 0.75}
    assert entries[1] == {"path": "bad.mp4", "duration_seconds": None, "windows": [], "segments": [], "error": "no such file"}
    write_timelines(tmp_path / "t.csv", found)
    with open(tmp_path / "t.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["window", "window", "segment", "segment"]
    assert {row["path"] for row in rows} == {found[0][0]}
    for row, segment in zip(rows[2:], timeline().segments, strict=True):
        assert row["label"] == segment.label
        assert [float(row[key]) for key in ("start_seconds", "end_seconds", "probability")] == [*segment[:2], segment.probability]
    assert os.fsencode(found[0][0]).replace(b'"', b'""') in (tmp_path / "t.csv").read_bytes()


def test_features_read_back(tmp_path: Path) -> None:
    paths = ["a.mp4", "odd \udce9 ü.mp4"]
    write_features(tmp_path / "f.npz", paths, [None, np.arange(3, dtype=np.float32)])
    with np.load(tmp_path / "f.npz") as stored:
        assert stored["paths"].tolist() == paths
        assert stored["features"].dtype == np.float32
        assert np.isnan(stored["features"][0]).all()
        assert stored["features"][1].tolist() == [0, 1, 2]
