"""Manifest CSVs and path lists: what is read, and what is refused with its line."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest

from videogn.dataset.columns import Entry
from videogn.dataset.manifest import ManifestFile, read_classes, validated, without
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


GONE = ["one.mp4,a,1,train", "gone.mp4,b,2,train", "4.mp4,b,4,train", "5.mp4,a,5,val", "away/6.mp4,b,6,test"]


def test_a_missing_video_is_an_error_unless_told_otherwise(root: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.mp4: no such file; correct the path or dataset\.root"):
        manifest_file(root, *GONE).manifest()


def test_missing_videos_are_told_and_those_of_the_test_stay_to_be_wrong(root: Path) -> None:
    manifest_file(root, *GONE)
    manifest = ManifestFile(str(root / "m.csv"), None, None, 0.5, "wrong").manifest()
    assert [e.path for e in manifest.entries] == ["one.mp4", "4.mp4", "5.mp4", "away/6.mp4"]
    assert [e.path for e in manifest.missing] == ["gone.mp4", "away/6.mp4"]
    assert manifest.notes == ("missing videos: 1 of 3 train (left out), 1 of 1 test (counted as wrong)",)
    manifest = ManifestFile(str(root / "m.csv"), None, None, 0.5, "leave_out").manifest()
    assert [e.path for e in manifest.entries] == ["one.mp4", "4.mp4", "5.mp4"]
    assert manifest.notes == ("missing videos: 1 of 3 train (left out), 1 of 1 test (left out)",)
    with pytest.raises(InputError, match=r"dataset\.missing=maybe; use error, wrong or leave_out"):
        inspect.unwrap(validated)(root, [], None, "m.csv", missing="maybe")


def test_a_root_without_any_of_the_videos(root: Path, tmp_path: Path) -> None:
    manifest_file(root, *GONE)
    (tmp_path / "elsewhere").mkdir()
    file = ManifestFile(str(root / "m.csv"), str(tmp_path / "elsewhere"), None, 0.5, "wrong")
    with pytest.raises(InputError, match=r"none of its 5 videos is there, such as .*elsewhere/one\.mp4; correct dataset\.root"):
        file.manifest()


def test_a_path_list_may_miss_videos_too(root: Path) -> None:
    lists = {"path": None, "val": str(root / "val.txt"), "train": str(root / "list.txt")}
    (root / "val.txt").write_text("5.mp4 a\ngone.mp4 b\n")
    with pytest.raises(InputError, match=r"val\.txt line 2: .*gone\.mp4: no such file"):
        path_list(root, "one.mp4 a", "4.mp4 b", **lists).manifest()
    manifest = path_list(root, "one.mp4 a", "4.mp4 b", **lists, missing="wrong").manifest()
    assert [e.path for e in manifest.missing] == ["gone.mp4"]
    assert len(manifest.split("val")) == 2


@pytest.mark.parametrize("prefix", [False, True], ids=["relative", "whole"])
def test_excluded_videos_are_left_out_and_told(root: Path, prefix: bool) -> None:
    manifest = manifest_file(root, "one.mp4,a,1,train", "4.mp4,b,4,train", "5.mp4,a,5,val").manifest()
    start = f"{root}/" if prefix else ""
    (root / "q.csv").write_text(f"path,reason,seconds\n{start}4.mp4,broken,1.0\n{start}5.mp4,broken,0.1\nother.mp4,broken,0.1\n")
    left = without(manifest, root / "q.csv")
    assert [e.path for e in left.entries] == ["one.mp4"]
    assert left.notes == (f"excluded by {root}/q.csv: 1 train, 1 val videos of the 3 that it names",)
    assert left.classes == manifest.classes


def test_a_list_of_excluded_videos_that_is_none(root: Path) -> None:
    manifest = manifest_file(root, "one.mp4,a,1,train", "4.mp4,b,4,train").manifest()
    with pytest.raises(InputError, match=r"nothing\.csv: cannot read the list of excluded videos \(dataset\.exclude\)"):
        without(manifest, root / "nothing.csv")
    (root / "q.csv").write_text("file\n4.mp4\n")
    with pytest.raises(InputError, match=r"q\.csv line 1: no column 'path'; dataset\.exclude takes the quarantine\.csv"):
        without(manifest, root / "q.csv")
    (root / "q.csv").write_text("path\n4.mp4\none.mp4\n")
    with pytest.raises(InputError, match=r"no video is left"):
        without(manifest, root / "q.csv")


@pytest.mark.parametrize(("path", "name"), [("own.csv", "own"), ("prepared/manifest.csv", "prepared"), ("manifest.csv", "here")])
def test_a_manifest_is_named_by_its_file_or_by_its_folder(
    path: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert ManifestFile(path, None, None, 0.5).name == name


@pytest.mark.parametrize("again", ["./one.mp4", "one.mp4", "folder/..//one.mp4", "{root}/one.mp4", "link.mp4", "linked/one.mp4"])
@pytest.mark.parametrize(
    ("label", "split", "message"),
    [("b", "train", "two labels, 'a' .* and 'b'"), ("a", "val", "two splits, train .* and val")],
    ids=["label", "split"],
)
def test_a_file_has_one_split_and_one_label_however_it_is_spelt(
    root: Path, again: str, label: str, split: str, message: str
) -> None:
    (root / "folder").mkdir()
    (root / "link.mp4").symlink_to(root / "one.mp4")
    (root / "linked").symlink_to(root)
    again = again.format(root=root)
    with pytest.raises(InputError, match=rf"m\.csv line 4: .*{message}.*\(the other: .*m\.csv line 2\)"):
        manifest_file(root, "one.mp4,a,,train", "4.mp4,b,,train", f"{again},{label},,{split}").manifest()
    lists = {"path": None, "val": str(root / "val.txt"), "train": str(root / "list.txt")}
    (root / "val.txt").write_text(f"5.mp4 a\n{again} {label}\n")
    with pytest.raises(InputError, match=r"val\.txt line 2: .*in two splits.*\(the other: .*list\.txt line 1\)"):
        path_list(root, "one.mp4 a", "4.mp4 b", **lists).manifest()
    # Told apart by no file: it is not there.
    manifest_file(root, "gone.mp4,a,1,train", "4.mp4,b,,train", f"./gone.mp4,{label},2,{split}")
    with pytest.raises(InputError, match=message):
        ManifestFile(str(root / "m.csv"), None, None, 0.5, "wrong").manifest()


def test_a_video_that_is_named_again_is_counted_once_and_told(root: Path) -> None:
    rows = ["one.mp4,a,,train", "4.mp4,b,,val"]
    once = manifest_file(root, *rows).manifest()
    again = manifest_file(root, *rows, "./one.mp4,a,,train", "4.mp4,b,,val").manifest()
    assert again == once
    assert again.notes == ("2 videos are named again, such as ./one.mp4: counted once",)


def test_spellings_of_a_file_are_drawn_into_one_split(root: Path) -> None:
    names = [f"{n}.mp4" for n in range(40)]
    for name in names:
        (root / name).touch()
    lines = [f"{name} {n % 2}" for n, name in enumerate(names)]
    once = path_list(root, *lines).manifest()
    assert path_list(root, *lines, *(f"./{line}" for line in lines)).manifest() == once


def latin(root: Path) -> str:
    """The name of a video that is no UTF-8."""
    name = os.fsdecode(b"caf\xe9.mp4")
    (root / name).touch()
    return name


def test_a_path_need_not_be_utf_8_and_a_label_must(root: Path) -> None:
    (root / "m.csv").write_bytes(b"path,label,split\none.mp4,a,train\ncaf\xe9.mp4,b,val\n")
    file = ManifestFile(str(root / "m.csv"), None, None, 0.5)
    name = latin(root)
    manifest = file.manifest()
    assert manifest.entries[1].path == name
    (root / "q.csv").write_bytes(b"path\ncaf\xe9.mp4\n")
    assert len(without(manifest, root / "q.csv")) == 1
    (root / "m.csv").write_bytes(b"path,label,split\none.mp4,a,train\n4.mp4,caf\xe9,val\n")
    with pytest.raises(InputError, match=r"m\.csv line 3: '4\.mp4': label 'caf\\udce9' is not UTF-8; save the file"):
        file.manifest()
    (root / "list.txt").write_bytes(b"one.mp4 a\n4.mp4 caf\xe9\n")
    with pytest.raises(InputError, match=r"list\.txt line 2: .* is not UTF-8"):
        PathList(str(root / "list.txt"), *[None] * 6, 0, 0.5).manifest()
    (root / "classes.txt").write_bytes(b"a\n\ncaf\xe9\n")
    with pytest.raises(InputError, match=r"classes\.txt line 3: class 'caf\\udce9' is not UTF-8"):
        read_classes(root / "classes.txt")


def test_labels_that_are_one_number_have_one_order(root: Path) -> None:
    """A set of strings has another order in every process."""
    labels = tuple(f"{'0' * n}1" for n in range(9, -1, -1))
    for label in labels:
        (root / f"{label}.mp4").touch()
    assert path_list(root, *(f"{label}.mp4 {label}" for label in labels), "4.mp4 2").manifest().classes == (*labels, "2")
    many_digits = "9" * 5000
    assert path_list(root, f"one.mp4 {many_digits}", "4.mp4 2").manifest().classes == ("2", many_digits)


def test_fields_of_a_manifest_may_hold_line_breaks_and_the_lines_are_those_of_the_file(root: Path) -> None:
    names = ["two\nlines.mp4", "two\r\nlines.mp4", "next\u0085\u2028line.mp4", "one.mp4"]
    for name in names:
        (root / name).touch()
    manifest = validated(root, [Entry(n, "ab"[n == "one.mp4"], n, "train") for n in names], None, "x")
    manifest.write(root / "m.csv")
    assert ManifestFile(str(root / "m.csv"), None, None, 0.5).manifest() == manifest
    with pytest.raises(InputError, match=r"m\.csv line 4: no label"):
        manifest_file(root, '"two\nlines.mp4",a,,train', "4.mp4,,,train").manifest()
    with pytest.raises(InputError, match=r"m\.csv line 2: .*label 'a\\nb' has a line break"):
        manifest_file(root, 'one.mp4,"a\nb",,train', "4.mp4,b,,train").manifest()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("4.mp4,b,,train,more", r"line 3: 5 fields for 4 columns; a field with a comma stands in quotes"),
        ('"4.mp4,b,,train', r"line 3: is no CSV: unexpected end of data"),
        ('"4".mp4,b,,train', r"line 3: is no CSV: .* expected after"),
        (f"{'x' * 140_000},b,,train", r"line 3: is no CSV: field larger than field limit"),
        (f"{'x' * 300}.mp4,b,,train", r"line 3: .*x\.mp4: no such file"),
        (f"4.mp4,{'b' * 5000},,train", None),
        ("4.mp4, b ,, train ", None),
    ],
    ids=["long row", "open quote", "quote inside", "long field", "long name", "long label", "spaces"],
)
def test_rows_of_a_manifest_that_are_odd(root: Path, row: str, message: str | None) -> None:
    file = manifest_file(root, "one.mp4,a,,train", row)
    if message is None:
        assert file.manifest().classes == ("a", row.split(",")[1].strip())
    else:
        with pytest.raises(InputError, match=rf"m\.csv {message}"):
            file.manifest()


def test_a_size_that_no_file_has(root: Path) -> None:
    header = "path,label,split,num_bytes"
    with pytest.raises(InputError, match=r"m\.csv line 2: num_bytes is '9{20}'"):
        manifest_file(root, f"one.mp4,a,train,{'9' * 20}", header=header).manifest()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf_16_is_named(root: Path, encoding: str) -> None:
    for name in ("m.csv", "list.txt"):
        (root / name).write_text("path,label,split\none.mp4,a,train\n", encoding=encoding)
    for read in (ManifestFile(str(root / "m.csv"), None, None, 0.5).manifest, lambda: read_classes(root / "list.txt")):
        with pytest.raises(InputError, match=r"UTF-16.*; save it as UTF-8"):
            read()


@pytest.mark.parametrize("separator", ["", 5, True])
def test_a_separator_that_is_none(root: Path, separator: object) -> None:
    with pytest.raises(InputError, match=r"dataset\.separator=.*; give what stands between path and label"):
        inspect.unwrap(PathList.__init__)(PathList.__new__(PathList), "list.txt", *[None] * 4, separator, None, 0, 0.5)


def test_a_tab_may_be_typed(root: Path) -> None:
    manifest = path_list(root, "two words.mp4\thigh jump", "one.mp4\trun", separator=r"\t").manifest()
    assert manifest.classes == ("high jump", "run")


def test_names_too_long_for_a_file(root: Path) -> None:
    long = "x" * 300
    for missing in ("error", "wrong"):
        with pytest.raises(InputError, match=r"no such file|is there"):
            path_list(root, f"{long} 12 a", f"{long}/4.mp4 b", missing=missing).manifest()
    with pytest.raises(InputError, match="cannot read the class list: File name too long"):
        read_classes(long)


def test_paths_that_are_numbers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    (root / "5").write_text("path\n4.mp4\n")
    assert read_classes(5) == ("path", "4.mp4")
    manifest = manifest_file(root, "one.mp4,a,1,train", "4.mp4,b,4,train").manifest()
    assert len(without(manifest, 5)) == 1
    with pytest.raises(InputError, match="6: cannot read the class list"):
        read_classes(6)


@pytest.mark.parametrize("name", ["./4.mp4", "folder/../4.mp4", "{root}//4.mp4", "{here}/4.mp4"])
def test_excluded_videos_may_be_spelt_otherwise(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    manifest_file(root, "one.mp4,a,1,train", "./4.mp4,b,4,train")
    manifest = ManifestFile(f"{root.name}/m.csv", None, None, 0.5).manifest()
    (root / "q.csv").write_text(f"path\n{name.format(root=root, here=root.name)}\n")
    assert [e.path for e in without(manifest, root / "q.csv").entries] == ["one.mp4"]


def test_a_list_that_excludes_nothing_says_how_paths_are_spelt_unless_it_is_empty(root: Path) -> None:
    rows = ["one.mp4,a,1,train", "4.mp4,b,4,train", "gone.mp4,b,5,train"]
    manifest_file(root, *rows)
    manifest = ManifestFile(str(root / "m.csv"), None, None, 0.5, "wrong").manifest()
    (root / "q.csv").write_text("path,reason\nelsewhere/4.mp4,broken\n")
    hint = ", such as elsewhere/4.mp4; paths of the data set are like one.mp4"
    said = f"excluded by {root}/q.csv: no videos of the 1 that it names"
    assert without(manifest, root / "q.csv").notes[-1] == said + hint
    for text in ("path,reason\n", "path,reason\ngone.mp4,broken\n"):
        (root / "q.csv").write_text(text)
        left = without(manifest, root / "q.csv")
        assert left.entries == manifest.entries
        assert hint not in left.notes[-1]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
def test_only_line_breaks_end_a_line(root: Path, ending: str) -> None:
    """Python's splitlines also cuts at these."""
    names = ["next\u0085line.mp4", "form\x0cfeed.mp4", "one.mp4"]
    for name in names:
        (root / name).touch()
    (root / "list.txt").write_text("".join(f"{name},{name[0]}{ending}" for name in names), newline="")
    manifest = PathList(str(root / "list.txt"), *[None] * 4, ",", None, 0, 0.5).manifest()
    assert [e.path for e in manifest.entries] == names
