"""The official CSVs and mmaction2's lists, and the folders that people keep Kinetics in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from videogn.dataset.kinetics import Kinetics
from videogn.dataset.manifest import Manifest, read_classes
from videogn.types import InputError

HEADER = "label,youtube_id,time_start,time_end,split"
ROWS = {
    "train": [
        "abseiling,-0aa_aaaaaa,0,10,train",
        "riding or walking with horse,bbbbbbbbbbb,123,133,train",
        "zumba,ccccccccccc,5,15,train",
    ],
    "val": ["abseiling,ddddddddddd,7,17,validate", "zumba,eeeeeeeeeee,8,18,validate"],
    "test": ["zumba,fffffffffff,9,19,test"],
}
NAMES = {
    "train": ["-0aa_aaaaaa_000000_000010", "bbbbbbbbbbb_000123_000133", "ccccccccccc_000005_000015"],
    "val": ["ddddddddddd_000007_000017", "eeeeeeeeeee_000008_000018"],
    "test": ["fffffffffff_000009_000019"],
}
LABELS = {"train": ["abseiling", "riding or walking with horse", "zumba"], "val": ["abseiling", "zumba"], "test": ["zumba"]}


def annotate(root: Path, rows: dict[str, list[str]] = ROWS, header: str = HEADER) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    for split, lines in rows.items():
        (root / "annotations" / f"{split}.csv").write_text("\n".join([header, *lines]) + "\n")


def touch(root: Path, place: Callable[[str, str, str], str]) -> None:
    """Empty files: a manifest opens none."""
    for split, names in NAMES.items():
        for name, label in zip(names, LABELS[split], strict=True):
            path = root / place(split, label, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def read(root: Path, **settings: object) -> Manifest:
    defaults = {"annotations": None, "classes": "kinetics400", "flip": 0.5, "missing": "error"}
    return Kinetics(str(root), **{**defaults, **settings}).manifest()  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "place",
    [
        lambda split, label, name: f"{split}/{label}/{name}.mp4",
        lambda split, label, name: f"videos_{split}/{label.replace(' ', '_')}/{name}.mkv",
        lambda split, label, name: f"k400/{split}/{name}.mp4",
        lambda split, label, name: f"{name}.webm",
        lambda split, label, name: f"{split}/{label}/{name[:11]}.mp4",
    ],
    ids=["class folders", "underscores", "CVDF", "flat", "without times"],
)
def test_files_are_found_in_any_folders(tmp_path: Path, place: Callable[[str, str, str], str]) -> None:
    annotate(tmp_path)
    touch(tmp_path, place)
    manifest = read(tmp_path)
    assert manifest.classes == read_classes("kinetics400")
    for split, names in NAMES.items():
        entries = manifest.split(split).entries
        assert [Path(e.path).stem[:11] for e in entries] == [name[:11] for name in names]
        assert [e.video_id for e in entries] == names
        assert [e.label for e in entries] == LABELS[split]
    assert all(manifest.path(row).is_file() for row in range(len(manifest)))
    assert manifest.notes == ()


def test_a_replacement_goes_before_what_it_mends(tmp_path: Path) -> None:
    annotate(tmp_path)
    touch(tmp_path, lambda split, label, name: f"{split}/{name}.mp4")
    mended = tmp_path / "replacement" / "replacement_for_corrupted_k400" / "ccccccccccc_000005_000015.mp4"
    mended.parent.mkdir(parents=True)
    mended.touch()
    manifest = read(tmp_path)
    assert str(mended.relative_to(tmp_path)) in [e.path for e in manifest.split("train").entries]
    assert len(manifest) == 6


def test_of_two_copies_that_of_the_split_is_taken(tmp_path: Path) -> None:
    annotate(tmp_path)
    touch(tmp_path, lambda split, label, name: f"{split}/{name}.mp4")
    touch(tmp_path, lambda split, label, name: f"a copy/{name}.mp4")
    assert [e.path.split("/")[0] for e in read(tmp_path).entries] == ["test", *["train"] * 3, *["val"] * 2]


def test_missing_videos_are_counted_and_listed(tmp_path: Path) -> None:
    annotate(tmp_path)
    touch(tmp_path, lambda split, label, name: f"{split}/{label}/{name}.mp4")
    (tmp_path / "train/zumba/ccccccccccc_000005_000015.mp4").unlink()
    shutil.rmtree(tmp_path / "val/zumba")
    manifest = read(tmp_path, missing="wrong")
    assert manifest.notes == ("missing videos: 1 of 3 train (left out), 1 of 2 val (counted as wrong)",)
    assert [e.path for e in manifest.missing] == [
        "train/zumba/ccccccccccc_000005_000015.mp4",
        "val/zumba/eeeeeeeeeee_000008_000018.mp4",
    ]
    assert len(manifest.split("val")) == 2
    with pytest.raises(InputError, match=r"train/zumba/ccccccccccc_000005_000015\.mp4: no such file"):
        read(tmp_path)


def test_mmaction2_lists(tmp_path: Path) -> None:
    """Their paths are relative to folders that differ by split, and are not needed."""
    classes = read_classes("kinetics400")
    touch(tmp_path, lambda split, label, name: f"videos_{split}/{label}/{name}.mp4")
    for split in ("train", "val"):
        lines = [f"{label}/{name}.mp4 {classes.index(label)}" for name, label in zip(NAMES[split], LABELS[split], strict=True)]
        (tmp_path / f"kinetics400_{split}_list_videos.txt").write_text("\n".join(lines) + "\n")
    manifest = read(tmp_path)
    assert [e.label for e in manifest.split("train").entries] == LABELS["train"]
    assert [e.path for e in manifest.split("val").entries] == [
        f"videos_val/{label}/{name}.mp4" for name, label in zip(NAMES["val"], LABELS["val"], strict=True)
    ]


def test_a_test_without_labels_is_left_out_and_told(tmp_path: Path) -> None:
    annotate(tmp_path)
    (tmp_path / "annotations/test.csv").write_text("youtube_id,time_start,time_end,split\nfffffffffff,9,19,test\n")
    touch(tmp_path, lambda split, label, name: f"{split}/{name}.mp4")
    manifest = read(tmp_path)
    assert not len(manifest.split("test"))
    assert manifest.notes == ("1 test videos are published without a label: left out",)


def test_the_columns_of_the_first_release(tmp_path: Path) -> None:
    """Quoted labels, a column more, times as decimals, and the split in the file's name alone."""
    rows = {
        f"kinetics-400_{s}": [
            f'"{line.split(",")[0]}",' + ",".join(line.split(",")[1:4]).replace(",123,", ",123.0,") + ",0" for line in lines
        ]
        for s, lines in ROWS.items()
    }
    annotate(tmp_path, rows, "label,youtube_id,time_start,time_end,is_cc")
    touch(tmp_path, lambda split, label, name: f"{split}/{name}.mp4")
    assert len(read(tmp_path).split("train")) == 3


def test_a_video_named_by_two_files_is_one(tmp_path: Path) -> None:
    annotate(tmp_path, {**ROWS, "all": [line for lines in ROWS.values() for line in lines]})
    (tmp_path / "annotations/kinetics400_train_list_videos.txt").write_text("elsewhere/ccccccccccc_000005_000015.mp4 399\n")
    touch(tmp_path, lambda split, label, name: f"{split}/{name}.mp4")
    assert len(read(tmp_path)) == 6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "jugling,ggggggggggg,1,11,train",
            r"train\.csv line 5: label 'jugling' is not one of the 400 classes; nearest: '",
        ),
        ("zumba,ggggggggggg,one,11,train", r"train\.csv line 5: time_start and time_end are 'one' and '11'; give seconds"),
        ("zumba,ggggggggggg,1,11,holdout", r"train\.csv line 5: 'holdout' names no split; it must hold one of train, val, test"),
        ("abseiling,eeeeeeeeeee,8,18,train", r"is in two splits, train .* and val"),
        ("zumba,ggggggggggg,inf,11,train", r"line 5: time_start and time_end are 'inf' and '11'; give seconds"),
        ("zumba,ggggggggggg,1,1e30,train", r"line 5: time_start and time_end are '1' and '1e30'; give seconds"),
        ("zumba,ggggggggggg,nan,-1,train", r"line 5: time_start and time_end are 'nan' and '-1'; give seconds"),
        ("zumba,,1,11,train", r"train\.csv line 5: no youtube_id; every row has one"),
        ("zumba,ggggggggggg,1,11,train,more", r"train\.csv line 5: 6 fields for 5 columns"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    annotate(tmp_path, {**ROWS, "train": [*ROWS["train"], line]})
    touch(tmp_path, lambda split, label, name: f"{split}/{name}.mp4")
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_folders_that_are_not_there_or_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.root: .*nothing: no such folder"):
        read(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"dataset\.annotations: .*nothing: no such folder"):
        read(tmp_path, annotations=str(tmp_path / "nothing"))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"no CSV with the columns youtube_id, time_start, time_end, and no list of mmaction2"):
        read(tmp_path)
    annotate(tmp_path)
    with pytest.raises(InputError, match=r"none of its 6 videos is there, such as .*test/zumba/fffffffffff_000009_000019\.mp4"):
        read(tmp_path, missing="wrong")


def test_real_clips(real_videos: Path, tmp_path: Path) -> None:
    lines = []
    for path in sorted((real_videos / "kinetics").rglob("*.mp4")):
        name, start, end = path.stem[:11], path.stem[12:18], path.stem[19:]
        lines.append(f"{path.parent.name},{name},{int(start)},{int(end)},{'train' if len(lines) % 2 else 'val'}")
    annotate(tmp_path, {"validate": lines})
    manifest = read(real_videos / "kinetics", annotations=str(tmp_path / "annotations"))
    assert len(manifest) == 8
    assert {e.label for e in manifest.entries} == {"arm wrestling", "bungee jumping"}


def test_a_file_named_by_its_recording_is_one_of_its_clips_and_not_known_which(tmp_path: Path) -> None:
    clips = ["zumba,ccccccccccc,105,115,train", "abseiling,ccccccccccc,205,215,train"]
    annotate(tmp_path, {"train": [*ROWS["train"], *clips], "val": [*ROWS["val"], "zumba,ccccccccccc,305,315,validate"]})
    touch(tmp_path, lambda split, label, name: f"{split}/{label}/{name[:11]}.mp4")
    (tmp_path / "train/abseiling/ccccccccccc_000205_000215.mp4").touch()  # this one says which it is
    manifest = read(tmp_path, missing="wrong")
    files = {e.video_id: (tmp_path / e.path).is_file() for e in manifest.entries if e.video_id.startswith("c")}
    assert files == {"ccccccccccc_000205_000215": True, "ccccccccccc_000305_000315": False}
    assert len(manifest.missing) == 3
    assert manifest.notes[0] == (
        "1 files are named by a recording of which several clips are published, such as train/zumba/ccccccccccc.mp4: which clip "
        "it is cannot be told, and all of them count as missing"
    )


def test_links_and_loops(tmp_path: Path) -> None:
    annotate(tmp_path)
    real = tmp_path / "disk"
    touch(real, lambda split, label, name: f"{split}/{label}/{name}.mp4")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(real)
    (real / "up").symlink_to(tmp_path)
    (real / "up2").symlink_to(tmp_path)
    (root / "a loop").symlink_to(tmp_path)  # before "linked" in order
    manifest = read(root, annotations=str(tmp_path / "annotations"))
    assert [e.path.split("/")[:2] for e in manifest.split("val").entries] == [["linked", "val"]] * 2
    # Of a file only the link is left.
    video = real / "train/zumba/ccccccccccc_000005_000015.mp4"
    video.unlink()
    video.symlink_to(tmp_path / "gone.mp4")
    manifest = read(root, annotations=str(tmp_path / "annotations"), missing="wrong")
    assert manifest.notes == ("missing videos: 1 of 3 train (left out)",)


def test_names_too_long_and_folders_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"dataset\.root: x+: no such folder"):
        read(Path("x" * 300))
    annotate(tmp_path)
    scandir = os.scandir

    def refuse(folder: Path) -> object:
        if os.path.basename(folder) == "annotations":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    (tmp_path / "videos").mkdir()
    with pytest.raises(InputError, match=r"annotations: cannot read the folder: Permission denied"):
        read(tmp_path / "videos", annotations=str(tmp_path / "annotations"))
