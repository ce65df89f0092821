"""Manifest CSVs and path lists: what is read, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from videogn.dataset.manifest import ManifestFile, read_classes
from videogn.dataset.path_list import PathList
from videogn.types import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("one.mp4", "two words.mp4", "three, 3.mp4", "4.mp4", "5.mp4", "6.mp4"):
        (tmp_path / name).touch()
    return tmp_path


def manifest_file(root: Path, *rows: str, header: str = "path,label,video_id,split", classes: str | None = None) -> ManifestFile:
    (root / "m.csv").write_text("\n".join([header, *rows]) + "\n")
    return ManifestFile(str(root / "m.csv"), None, classes, 0.5)


def path_list(root: Path, *lines: str, **settings: object) -> PathList:
    (root / "list.txt").write_text("\n".join(lines) + "\n")
    names = ("train", "val", "test", "root", "separator", "classes")
    defaults = {**dict.fromkeys(names), "path": str(root / "list.txt"), "split_seed": 0, "flip": 0.5}
    return PathList(**{**defaults, **settings})  # pyright: ignore[reportArgumentType]


def test_manifest_reads_what_was_written(root: Path) -> None:
    rows = ["one.mp4,b,x,train", "two words.mp4,a,y,val", '"three, 3.mp4",a,z,train']
    manifest = manifest_file(root, *rows).manifest()
    assert manifest.classes == ("a", "b")
    assert [e.path for e in manifest.entries] == ["one.mp4", "two words.mp4", "three, 3.mp4"]
    assert manifest.split("train").targets().tolist() == [1, 0]
    manifest.write(root / "again.csv")
    again = ManifestFile(str(root / "again.csv"), None, None, 0.5).manifest()
    assert again.entries == manifest.entries
    assert again.sha256() == manifest.sha256()


def test_the_mark_that_spreadsheets_put_before_a_csv_is_no_text(root: Path) -> None:
    """Excel's "CSV UTF-8" begins with U+FEFF."""
    file = manifest_file(root, "one.mp4,a,x,train", "4.mp4,b,y,val", header="\ufeffpath,label,video_id,split")
    assert file.manifest().classes == ("a", "b")


def test_hash_follows_content_and_not_place(root: Path) -> None:
    one = manifest_file(root, "one.mp4,a,x,train", "4.mp4,b,y,val").manifest()
    other = manifest_file(root, "one.mp4,a,x,train", "4.mp4,b,y,test").manifest()
    assert one.sha256() != other.sha256()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["one.mp4,a,x,train", "4.mp4,b,x,test"], r"video_id 'x' is in two splits, train \(one\.mp4\) and test \(4\.mp4\)"),
        (["one.mp4,a,x,train", "4.mp4,b,x,train"], r"video_id 'x' has two labels, 'a' \(one\.mp4\) and 'b' \(4\.mp4\)"),
        (["one.mp4,a,x,train", "gone.mp4,b,y,train"], r"gone\.mp4: no such file"),
        (["one.mp4,a,x,train", "4.mp4,,y,train"], r"m\.csv line 3: no label"),
        (["one.mp4,a,x,train", "4.mp4,b,y,dev"], r"split 'dev' is not one of train, val, test"),
        ([], "no videos"),
    ],
)
def test_bad_manifests(root: Path, rows: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        manifest_file(root, *rows).manifest()


def test_manifest_needs_its_columns(root: Path) -> None:
    with pytest.raises(InputError, match=r"m\.csv line 1: no column 'split'"):
        manifest_file(root, "one.mp4,a", header="path,label").manifest()


def test_unknown_label_names_the_nearest(root: Path) -> None:
    (root / "classes.txt").write_text("juggling balls\njumping\n")
    with pytest.raises(InputError, match=r"line 2: label 'jugling balls' is not one of the 2 classes; nearest: 'juggling balls'"):
        manifest_file(root, "one.mp4,jugling balls,x,train", classes=str(root / "classes.txt")).manifest()


def test_class_lists(root: Path) -> None:
    assert len(read_classes("kinetics400")) == 400
    (root / "classes.txt").write_text("a\nb\na\n")
    with pytest.raises(InputError, match="class 'a' stands 2 times"):
        read_classes(root / "classes.txt")
    with pytest.raises(InputError, match=r"nowhere\.txt: cannot read the class list"):
        read_classes(root / "nowhere.txt")


def test_path_list_keeps_the_spaces_of_paths(root: Path) -> None:
    manifest = path_list(root, "one.mp4 a", "two words.mp4 b", "three, 3.mp4 a").manifest()
    assert {(e.path, e.label) for e in manifest.entries} == {("one.mp4", "a"), ("two words.mp4", "b"), ("three, 3.mp4", "a")}


def test_path_list_separator_lets_labels_have_spaces(root: Path) -> None:
    manifest = path_list(root, "three, 3.mp4,high jump", "one.mp4,run", separator=",").manifest()
    assert {(e.path, e.label) for e in manifest.entries} == {("three, 3.mp4", "high jump"), ("one.mp4", "run")}


def test_numbers_are_sorted_by_value_or_index_the_class_list(root: Path) -> None:
    lines = ["one.mp4 10", "4.mp4 9", "5.mp4 2"]
    assert path_list(root, *lines).manifest().classes == ("2", "9", "10")
    (root / "classes.txt").write_text("zero\none\ntwo\n")
    manifest = path_list(root, "one.mp4 2", "4.mp4 0", classes=str(root / "classes.txt")).manifest()
    assert {e.path: e.label for e in manifest.entries} == {"one.mp4": "two", "4.mp4": "zero"}
    with pytest.raises(InputError, match=r"list\.txt line 1: label '3' is not one of the 3 classes"):
        path_list(root, "one.mp4 3", classes=str(root / "classes.txt")).manifest()


def test_one_list_a_split(root: Path) -> None:
    (root / "train.txt").write_text("one.mp4 a\n4.mp4 b\n")
    (root / "val.txt").write_text("5.mp4 a\n")
    manifest = path_list(root, path=None, train=str(root / "train.txt"), val=str(root / "val.txt")).manifest()
    assert [(e.path, e.split) for e in manifest.entries] == [("one.mp4", "train"), ("4.mp4", "train"), ("5.mp4", "val")]


def test_bad_path_lists(root: Path) -> None:
    with pytest.raises(InputError, match=r"list\.txt line 2: 'onlypath\.mp4' has no label"):
        path_list(root, "one.mp4 a", "onlypath.mp4").manifest()
    with pytest.raises(InputError, match=r"list\.txt line 1: .*gone\.mp4: no such file"):
        path_list(root, "gone.mp4 a").manifest()
    with pytest.raises(InputError, match="an empty list"):
        path_list(root, "").manifest()
    with pytest.raises(InputError, match=r"give either dataset\.path=FILE"):
        path_list(root, path=None)
    with pytest.raises(InputError, match=r"dataset\.train and dataset\.val are both needed"):
        path_list(root, path=None, train=str(root / "list.txt"))
