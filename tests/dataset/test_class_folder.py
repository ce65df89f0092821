"""ClassFolder against folders made in the test; no frame is decoded."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from videogn.dataset.class_folder import ClassFolder
from videogn.types import InputError


def make(root: Path, *videos: str) -> Path:
    for video in videos:
        (root / video).parent.mkdir(parents=True, exist_ok=True)
        (root / video).touch()
    return root


def folder(root: Path, **settings: object) -> ClassFolder:
    defaults = {"groups": None, "group_by": None, "split_seed": 0, "classes": None, "flip": 0.5}
    return ClassFolder(str(root), **{**defaults, **settings})  # pyright: ignore[reportArgumentType]


def splits(dataset: ClassFolder) -> dict[str, str]:
    return {entry.path: entry.split for entry in dataset.manifest().entries}


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Two classes of 40 videos; eight videos to a source, and a source holds both classes."""
    root = make(tmp_path / "root", *(f"{label}/{i:02d} a,b=c.mp4" for label in ("run", "jump up") for i in range(40)))
    rows = [f'"{label}/{i:02d} a,b=c.mp4",{label},S{i // 4}' for label in ("run", "jump up") for i in range(40)]
    (root / "groups.csv").write_text("path,label,source\n" + "\n".join(rows) + "\n")
    return root


def test_a_source_is_in_one_split(many: Path) -> None:
    manifest = folder(many, groups=str(many / "groups.csv")).manifest()
    sources: dict[str, set[str]] = {}
    for entry in manifest.entries:
        sources.setdefault(f"S{int(entry.path.split('/')[1][:2]) // 4}", set()).add(entry.split)
    assert all(len(found) == 1 for found in sources.values())
    # 70/15/15 of ten groups; 15% of ten is 1 or 2.
    counts = Counter(next(iter(found)) for found in sources.values())
    assert counts["train"] == 7
    assert {counts["val"], counts["test"]} <= {1, 2}


def test_without_groups_the_division_is_by_file_and_stratified_and_says_so(many: Path) -> None:
    manifest = folder(many).manifest()
    for label in ("run", "jump up"):
        assert Counter(e.split for e in manifest.entries if e.label == label) == {"train": 28, "val": 6, "test": 6}
    assert "by file" in " ".join(manifest.notes)
    assert "no dataset.groups" in " ".join(manifest.notes)


def test_split_seed_alone_changes_the_division(many: Path) -> None:
    assert splits(folder(many)) == splits(folder(many))
    assert splits(folder(many)) != splits(folder(many, split_seed=1))


def test_group_column_is_asked_for_where_two_could_be_meant(many: Path) -> None:
    (many / "groups.csv").write_text("path,person,place\nrun/00.mp4,A,B\n")
    with pytest.raises(InputError, match=r"2 columns could name the group \(person, place\).*dataset\.group_by"):
        folder(many, groups=str(many / "groups.csv")).manifest()
    with pytest.raises(InputError, match=r"no column 'actor'.*person, place"):
        folder(many, groups=str(many / "groups.csv"), group_by="actor").manifest()


def test_every_video_needs_its_group(many: Path) -> None:
    (many / "groups.csv").write_text("path,source\nrun/00 a.mp4,S0\n")
    with pytest.raises(InputError, match=r"no row for jump up/00 a,b=c\.mp4"):
        folder(many, groups=str(many / "groups.csv")).manifest()


def test_split_folders_are_splits(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"{s}/{c}/{s}{i}.mp4" for s in ("train", "validation", "test") for c in "ab" for i in range(2)))
    manifest = folder(root).manifest()
    assert manifest.classes == ("a", "b")
    assert {(e.path.split("/")[0], e.split) for e in manifest.entries} == {
        ("train", "train"),
        ("validation", "val"),
        ("test", "test"),
    }


def test_a_fifth_of_train_is_val_where_there_is_no_val_folder(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"train/{c}/{i}.mp4" for c in "ab" for i in range(10)), "test/a/t.mp4", "test/b/t.mp4")
    counts = Counter(e.split for e in folder(root).manifest().entries)
    assert counts == {"train": 16, "val": 4, "test": 2}


def test_split_folders_must_not_divide_a_group(tmp_path: Path) -> None:
    root = make(tmp_path / "root", *(f"{s}/{c}/{i}.mp4" for s in ("train", "test") for c in "ab" for i in range(5)))
    paths = [f"{s}/{c}/{i}.mp4" for s in ("train", "test") for c in "ab" for i in range(5)]
    group_of = {path: f"{path[:5]} {path[-5]}" for path in paths}
    for groups, is_apart in ((group_of, True), ({**group_of, "test/b/3.mp4": "train 2"}, False)):
        (tmp_path / "groups.csv").write_text("path,person\n" + "".join(f"{path},{group}\n" for path, group in groups.items()))
        dataset = folder(root, groups=str(tmp_path / "groups.csv"))
        if is_apart:
            assert {entry.split for entry in dataset.manifest().entries} == {"train", "val", "test"}
            continue
        with pytest.raises(
            InputError, match=r"group 'train 2' is in two splits, test \(test/b/3\.mp4\) and (train|val) \(train/a/2"
        ):
            dataset.manifest()


def test_nested_folders_and_other_files(tmp_path: Path) -> None:
    root = make(tmp_path, "a/x/1.MP4", "a/readme.txt", "b/2.avi", ".cache/3.mp4", "notes.txt")
    assert {(e.path, e.label) for e in folder(root).manifest().entries} == {("a/x/1.MP4", "a"), ("b/2.avi", "b")}


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([], "no videos"),
        (["a/1.mp4"], r"1 class \(a\); a classifier needs at least two"),
        (["a/1.mp4", "b/readme.txt"], r"b: a class folder without a video"),
        (["train/a/1.mp4", "train/b/1.mp4", "c/1.mp4"], r"'c' stands beside the split folder 'train'"),
    ],
)
def test_bad_folders(tmp_path: Path, videos: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        folder(make(tmp_path, *videos)).manifest()


def test_no_such_root(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder; give the folder that holds one folder per class"):
        folder(tmp_path / "nowhere").manifest()


def test_real_sources_stay_together(real_videos: Path) -> None:
    root = real_videos / "fight"
    manifest = folder(root, groups=str(root / "groups.csv")).manifest()
    source_of = dict(line.split(",")[0:3:2] for line in (root / "groups.csv").read_text().splitlines()[1:])
    of_split = {s: {source_of[e.path] for e in manifest.entries if e.split == s} for s in ("train", "val", "test")}
    assert len(manifest) == 300
    assert not of_split["train"] & of_split["val"]
    assert not of_split["train"] & of_split["test"]
    assert not of_split["val"] & of_split["test"]
    # 46 sources: 70% are 32.2, 15% are 6.9; stratified over two labels each may move by one a label.
    assert abs(len(of_split["train"]) - 32.2) <= 2
    assert abs(len(of_split["test"]) - 6.9) <= 2


def test_underscores_of_a_copy_are_the_spaces_of_a_class(tmp_path: Path) -> None:
    root = make(tmp_path / "k", *(f"{split}/{label}/1.mp4" for split in ("train", "val") for label in ("arm_wrestling", "zumba")))
    manifest = folder(root, classes="kinetics400").manifest()
    assert {e.label for e in manifest.entries} == {"arm wrestling", "zumba"}
    make(root, "train/arm-wrestling/1.mp4")
    with pytest.raises(InputError, match=r"label 'arm-wrestling' is not one of the 400 classes; nearest: 'arm wrestling'"):
        folder(root, classes="kinetics400").manifest()


def test_linked_folders_are_followed_and_loops_are_no_classes(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "run/1.mp4", "jump/2.mp4")
    make(tmp_path, "elsewhere/deep/3.mp4")
    (root / "run" / "more").symlink_to(tmp_path / "elsewhere")
    for link, target in (("loop", root), ("up", tmp_path), ("run/back", root), ("run/itself", root / "run")):
        (root / link).symlink_to(target)
    manifest = folder(root).manifest()
    assert {(e.path, e.label) for e in manifest.entries} == {
        ("run/1.mp4", "run"),
        ("run/more/deep/3.mp4", "run"),
        ("jump/2.mp4", "jump"),
    }


def test_a_folder_that_is_two_classes_or_two_splits(tmp_path: Path) -> None:
    root = make(tmp_path / "classes", "run/1.mp4", "jump/2.mp4")
    (root / "sprint").symlink_to(root / "run")
    with pytest.raises(InputError, match=r"sprint/1\.mp4.* has two labels, 'run' \(run/1\.mp4\) and 'sprint'|is in two splits"):
        folder(root).manifest()
    root = make(tmp_path / "splits", "train/run/1.mp4", "train/jump/2.mp4")
    (root / "val").symlink_to(root / "train")
    with pytest.raises(InputError, match=r"one file, .* is in two splits, "):
        folder(root).manifest()


def test_links_to_videos_of_the_class_change_no_division(many: Path, tmp_path: Path) -> None:
    once = folder(many).manifest()
    (tmp_path / "again").symlink_to(many / "run")
    (many / "run" / "again").symlink_to(tmp_path / "again")  # a loop
    for path in list((many / "run").glob("*.mp4")):
        (many / "run" / f"copy of {path.name}").symlink_to(path)
    again = folder(many).manifest()
    assert again == once
    assert "40 videos are named again, such as run/copy of 00 a,b=c.mp4: counted once" in again.notes


def test_the_names_of_split_folders_have_no_case(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"{s}/{c}/1.mp4" for s in ("Train", "VALIDATION", "Test") for c in "ab"))
    manifest = folder(root).manifest()
    assert manifest.classes == ("a", "b")
    assert {(e.path[:2], e.split) for e in manifest.entries} == {("Tr", "train"), ("VA", "val"), ("Te", "test")}


def test_a_class_is_a_line_of_a_class_list(tmp_path: Path) -> None:
    """As it comes back from the classes.txt that `videogn prepare` writes."""
    root = make(tmp_path / "root", "run /1.mp4", "jump/2.mp4")
    manifest = folder(root).manifest()
    assert manifest.classes == ("jump", "run")
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in manifest.classes))
    assert folder(root, classes=str(tmp_path / "classes.txt")).manifest() == manifest
    for name, message in ((b"two\nlines", "has a line break"), (b"caf\xe9", "is not UTF-8"), (b"  ", "is empty")):
        bad = make(tmp_path / str(len(message)), "a/1.mp4", f"{os.fsdecode(name)}/2.mp4")
        with pytest.raises(InputError, match=message):
            folder(bad).manifest()


def test_a_root_too_long_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.root: .*x: no such folder"):
        folder(tmp_path / ("x" * 300)).manifest()
