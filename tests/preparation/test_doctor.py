"""What the doctor finds in rows that are made up, and what it leaves alone."""

from __future__ import annotations

import json

from rich.console import Console

from videogn.dataset.columns import Entry
from videogn.preparation.doctor import examine, tables
from videogn.preparation.prepare import Row
from videogn.preparation.verify import Facts


def row(
    path: str,
    label: str,
    split: str,
    content: str = "",
    video_id: str = "",
    reason: str = "",
    status: str = "ok",
    frames: int = 90,
) -> Row:
    entry = Entry(path, label, video_id or path, split)
    if reason:
        return Row(entry, None, path, None, reason, 0.5)
    facts = Facts(frames, 30.0, 256, 340, "h264", frames / 30, 1000, content or path, status)
    return Row(entry, facts, path, facts, "", 0.5)


def healthy() -> list[Row]:
    return [
        row(f"{label}/{split}{i}.mp4", label, split) for label in "ab" for split in ("train", "val", "test") for i in range(3)
    ]


def kinds(report: dict) -> list[str]:
    return [finding["kind"] for finding in report["findings"]]


def test_a_healthy_set_has_no_findings() -> None:
    report = examine(healthy(), ["a", "b"])
    assert report["findings"] == []
    assert report["notes"] == []
    assert (report["num_videos"], report["num_usable"], report["num_unusable"], report["num_partial"]) == (18, 18, 0, 0)
    assert report["classes"] == {name: {"train": 3, "val": 3, "test": 3} for name in "ab"}
    assert report["splits"]["train"] == {"videos": 6, "unusable": 0, "hours": 0.005}
    assert report["duration_seconds"] == {"min": 3.0, "median": 3.0, "max": 3.0, "total": 54.0}
    assert report["sizes"] == {"340x256": 18}
    assert report["imbalance"]["ratio"] == 1
    assert json.loads(json.dumps(report)) == report


def test_copies_across_splits_and_labels_are_findings_and_inside_a_class_a_note() -> None:
    rows = healthy()
    across = examine([*rows, row("a/copy.mp4", "a", "test", content="a/train0.mp4")], ["a", "b"])
    assert kinds(across) == ["duplicates_across_splits"]
    assert across["findings"][0]["videos"] == ["a/train0.mp4", "a/copy.mp4"]
    assert across["findings"][0]["message"].endswith("a/train0.mp4 (train) = a/copy.mp4 (test)")
    assert kinds(examine([*rows, row("b/copy.mp4", "b", "train", content="a/train0.mp4")], ["a", "b"])) == [
        "duplicates_with_other_labels"
    ]
    inside = examine([*rows, row("a/copy.mp4", "a", "train", content="a/train0.mp4")], ["a", "b"])
    assert inside["findings"] == []
    assert inside["notes"] == ["1 video the same as another of its split and class, such as a/copy.mp4"]
    assert inside["duplicates"] == [["a/train0.mp4", "a/copy.mp4"]]


def test_one_file_listed_twice_is_no_copy() -> None:
    assert examine([*healthy(), healthy()[0]], ["a", "b"])["duplicates"] == []


def test_one_file_in_two_splits_or_under_two_labels_is_a_finding() -> None:
    for split, label, kind in (("test", "a", "duplicates_across_splits"), ("train", "b", "duplicates_with_other_labels")):
        report = examine([*healthy(), row("a/train0.mp4", label, split, video_id="another")], ["a", "b"])
        assert kinds(report) == [kind]
        assert report["findings"][0]["videos"] == ["a/train0.mp4", "a/train0.mp4"]


def test_recordings_in_two_splits() -> None:
    rows = [*healthy(), row("a/1.mp4", "a", "train", video_id="rec"), row("a/2.mp4", "a", "val", video_id="rec")]
    report = examine(rows, ["a", "b"])
    assert kinds(report) == ["video_id_across_splits"]
    assert report["findings"][0]["videos"] == ["a/1.mp4", "a/2.mp4"]
    assert "'rec' (train, val)" in report["findings"][0]["message"]
    # An unusable video leaks nothing by its content, and its id is still in two splits.
    rows = [*healthy(), row("a/1.mp4", "a", "train", video_id="rec"), row("a/2.mp4", "a", "val", video_id="rec", reason="broken")]
    assert "video_id_across_splits" in kinds(examine(rows, ["a", "b"]))


def test_classes_missing_from_a_split_and_unused_ones() -> None:
    rows = [each for each in healthy() if not (each.entry.label == "b" and each.entry.split == "train")]
    report = examine(rows, ["a", "b", "c"])
    assert kinds(report) == ["class_missing_from_train"]
    assert report["findings"][0]["message"] == "1 class without a usable video in split train (never learned): b"
    assert report["unused_classes"] == ["c"]
    assert report["notes"] == ["1 of 3 classes of the list have no video: c"]
    for split in ("val", "test"):
        rows = [each for each in healthy() if not (each.entry.label == "b" and each.entry.split == split)]
        assert kinds(examine(rows, ["a", "b"])) == [f"class_missing_from_{split}"]


def test_a_class_whose_videos_all_fail_is_missing() -> None:
    rows = [
        row("b/x.mp4", "b", "train", reason="broken") if each.entry.label == "b" and each.entry.split == "train" else each
        for each in healthy()
    ]
    assert kinds(examine(rows, ["a", "b"])) == ["class_missing_from_train", "unusable_train"]


def test_empty_splits() -> None:
    """Without a test split val is tested on; without val there is no training."""
    assert kinds(examine([each for each in healthy() if each.entry.split != "test"], ["a", "b"])) == []
    assert kinds(examine([each for each in healthy() if each.entry.split != "val"], ["a", "b"])) == ["empty_split"]


def test_unusable_videos() -> None:
    """In train up to the share that is allowed; in val and test each counts as wrong."""
    train = [row(f"a/more{i}.mp4", "a", "train") for i in range(13)]  # with the other 6 and a broken one: 20
    one = [*healthy(), *train, row("a/broken.mp4", "a", "train", reason="no frame decodes")]
    report = examine(one, ["a", "b"])
    assert report["findings"] == []
    assert report["notes"][0] == "1 video cannot be used (3.1%): quarantine.csv says why"
    assert kinds(examine(one, ["a", "b"], max_bad_fraction=0.04)) == ["unusable_train"]
    for split in ("val", "test"):
        report = examine([*healthy(), row("a/broken.mp4", "a", split, reason="no frame decodes")], ["a", "b"])
        assert kinds(report) == [f"unusable_{split}"]
        assert report["findings"][0]["videos"] == ["a/broken.mp4"]


def test_notes() -> None:
    rows = [
        *healthy(),
        *(row(f"a/more{i}.mp4", "a", "train") for i in range(3)),
        row("a/part.mp4", "a", "train", status="partial"),
        row("a/short.mp4", "a", "train", frames=15),
        row("a/enough.mp4", "a", "train", frames=16),
    ]
    report = examine(rows, ["a", "b"], clip_frames=16)
    assert report["findings"] == []
    assert report["num_partial"] == 1
    assert report["unlisted"] == []
    assert report["short_videos"] == {"clip_frames": 16, "videos": ["a/short.mp4"]}
    assert report["imbalance"] == {"most": ["a", 9], "fewest": ["b", 3], "ratio": 3.0}
    assert [note.split(" ")[:3] for note in report["notes"]] == [
        ["1", "video", "partial:"],
        ["1", "video", "shorter"],
        ["training", "classes", "are"],
    ]


def test_files_of_earlier_runs_are_a_note() -> None:
    report = examine(healthy(), ["a", "b"], unlisted=["c/1.mp4", "c/2.mp4"])
    assert report["findings"] == []
    assert report["unlisted"] == ["c/1.mp4", "c/2.mp4"]
    (note,) = report["notes"]
    assert note.startswith("2 files of earlier runs in this folder, which no list has any more: c/1.mp4, c/2.mp4; ")


def test_prints_all_that_it_says() -> None:
    rows = [*healthy(), row("a/copy.mp4", "a", "test", content="a/train0.mp4"), row("a/short.mp4", "a", "train", frames=2)]
    rows.append(row("c/1.mp4", "[red]c", "train"))
    report = examine(rows, ["a", "b", "[red]c", "d"])
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as captured:
        for part in tables(report):
            console.print(part, markup=not isinstance(part, str))
    text = captured.get()
    assert "│ [red]c" in text
    assert "│ d" not in text  # of 400 classes of a list some have videos; the others are counted
    assert "1 of 4 classes of the list have no video: d" in text
    assert all(finding["message"] in text for finding in report["findings"])
    assert all(note in text for note in report["notes"])
    assert "340x256 (21)" in text


def test_an_empty_set_is_told_not_a_crash() -> None:
    report = examine([row("a/1.mp4", "a", "train", reason="broken")], ["a", "b"])
    assert report["duration_seconds"] is None
    assert "empty_split" in kinds(report)
    assert tables(report)
