"""UCF101's lists."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from videogn.dataset.manifest import Manifest
from videogn.dataset.published import FoldedSet
from videogn.dataset.ucf101 import UCF101
from videogn.types import InputError

CLASSES = {"Archery": "Archery", "HandstandPushups": "HandStandPushups"}  # the second spells its files otherwise


@pytest.fixture
def root(tmp_path: Path) -> Path:
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    train, test = [], []
    for number, (label, spelt) in enumerate(CLASSES.items(), start=1):
        (tmp_path / "UCF-101" / label).mkdir(parents=True)
        for group in range(1, 26):
            for clip in range(1, 4):
                name = f"v_{spelt}_g{group:02d}_c{clip:02d}.avi"
                (tmp_path / "UCF-101" / label / name).touch()
                (test if group <= 7 else train).append(f"{label}/{name}" + ("" if group <= 7 else f" {number}"))
    (lists / "trainlist01.txt").write_text("\r\n".join(train) + "\r\n")
    (lists / "testlist01.txt").write_text("\r\n".join(test) + "\r\n")
    (lists / "trainlist02.txt").write_text("\n".join(train[:9]) + "\n")
    (lists / "classInd.txt").write_text("1 Archery\n2 HandstandPushups\n")
    return tmp_path


def read(root: Path, **settings: object) -> Manifest:
    defaults = {"annotations": None, "classes": "ucf101", "flip": 0.5, "missing": "error"}
    defaults |= {"fold": 1, "val_fraction": 0.1, "split_seed": 0}
    return UCF101(str(root), **{**defaults, **settings}).manifest()  # pyright: ignore[reportArgumentType]


def read_as_it_is(root: Path, **settings: object) -> Manifest:
    """Values of other types than the class asks for, as a command line may bring them."""
    dataset = UCF101.__new__(UCF101)
    defaults = {"annotations": None, "classes": "ucf101", "flip": 0.5, "missing": "error"}
    defaults |= {"fold": 1, "val_fraction": 0.1, "split_seed": 0}
    inspect.unwrap(FoldedSet.__init__)(dataset, str(root), **{**defaults, **settings})
    return dataset.manifest()


def test_the_published_test_and_a_val_of_whole_recordings(root: Path) -> None:
    manifest = read(root)
    splits = {s: manifest.split(s).entries for s in ("train", "val", "test")}
    groups = {s: {e.path.rpartition("_c")[0] for e in entries} for s, entries in splits.items()}
    assert groups["test"] == {f"UCF-101/{label}/v_{spelt}_g{g:02d}" for label, spelt in CLASSES.items() for g in range(1, 8)}
    assert not groups["train"] & groups["val"]
    # 18 groups a class, of which a tenth is 1.8: 2.
    assert {s: len(entries) for s, entries in splits.items()} == {"train": 2 * 16 * 3, "val": 2 * 2 * 3, "test": 2 * 7 * 3}
    assert {e.label for e in splits["val"]} == set(CLASSES)
    assert manifest.notes == (
        "no val split is published: 12 of the 108 training videos are val, whole recordings (dataset.val_fraction=0.1, "
        "dataset.split_seed=0)",
    )
    assert read(root) == manifest
    assert read(root, split_seed=1) != manifest
    assert len(manifest.classes) == 101


def test_the_test_may_be_val(root: Path) -> None:
    manifest = read(root, val_fraction=0)
    assert [len(manifest.split(s)) for s in ("train", "val", "test")] == [108, 42, 0]
    assert manifest.notes == ("val is the published test: what is chosen by it is chosen by the answers",)


def test_videos_may_be_other_files_in_other_folders(root: Path) -> None:
    for path in list((root / "UCF-101").rglob("*.avi")):
        path.rename(root / f"{path.stem}.mp4")
    assert len(read(root)) == 150


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fold": 3}, r"holds no trainlist03\.txt; dataset\.annotations is the folder of trainlist01\.txt"),
        ({"fold": 2}, r"holds no testlist02\.txt"),
        ({"fold": 4}, r"dataset\.fold=4; use 1, 2 or 3"),
        ({"fold": 1.0}, r"dataset\.fold=1\.0; use 1, 2 or 3, a whole number without quotes"),
        ({"fold": "1"}, r"dataset\.fold='1'; use 1, 2 or 3, a whole number without quotes"),
        ({"fold": True}, r"dataset\.fold=True; use 1, 2 or 3"),
        ({"val_fraction": 1.0}, r"dataset\.val_fraction=1\.0; give a share of the training videos"),
    ],
)
def test_what_is_wrong(root: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_as_it_is(root, **settings)


def test_a_folder_that_is_no_class(root: Path) -> None:
    (root / "ucfTrainTestlist/trainlist01.txt").write_text("Archry/v_Archry_g08_c01.avi 1\n")
    with pytest.raises(
        InputError, match=r"trainlist01\.txt line 1: label 'Archry' is not one of the 101 classes; nearest: 'Archery'"
    ):
        read(root)


@pytest.mark.parametrize("num_groups", [2, 3, 4])
def test_a_few_recordings_give_one_to_val(root: Path, num_groups: int) -> None:
    """A tenth of them is less than half a recording."""
    path = root / "ucfTrainTestlist/trainlist01.txt"
    listed = [line for line in path.read_text().splitlines() if int(line.split("_g")[1][:2]) < 8 + num_groups]
    path.write_text("\n".join(listed) + "\n")
    drawn = set()
    for seed in range(8):
        manifest = read(root, val_fraction=0.05, split_seed=seed)
        val = {e.path.rpartition("_c")[0] for e in manifest.split("val").entries}
        train = manifest.split("train").entries
        assert len(val) == 1
        assert not val & {e.path.rpartition("_c")[0] for e in train}
        assert {e.label for e in train} == set(CLASSES)
        drawn |= val
    assert len(drawn) > 1


def test_one_recording_of_each_class_has_none_to_spare(root: Path) -> None:
    path = root / "ucfTrainTestlist/trainlist01.txt"
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if "_g08_" in line))
    with pytest.raises(InputError, match=r"no class has a training recording to spare for val; .* dataset\.val_fraction=0"):
        read(root, val_fraction=0.05)
    assert len(read(root, val_fraction=0).split("train")) == 6
