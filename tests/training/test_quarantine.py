"""Broken training videos: told once, written once, and too many end the run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from videogn.dataset.columns import Entry
from videogn.dataset.manifest import Manifest, without
from videogn.training.quarantine import Quarantine
from videogn.types import DeadVideo, Findings


def train_split(root: Path, count: int) -> Manifest:
    return Manifest(root, [Entry(f"a/{n}, odd.mp4", "ab"[n % 2], str(n), "train") for n in range(count)], ("a", "b"))


def test_a_video_is_told_and_written_once(tmp_path: Path) -> None:
    manifest, told = train_split(tmp_path, 10), []
    quarantine = Quarantine(tmp_path / "quarantine.csv", manifest, 1.0)
    for row in (3, 5, 3):
        quarantine.add(DeadVideo(row, str(manifest.path(row)), 'no frame, "decodes"', 1.234), told.append)
    assert told == [f'skipped {tmp_path}/a/{row}, odd.mp4: no frame, "decodes"' for row in (3, 5)]
    with (tmp_path / "quarantine.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["path", "reason", "seconds"],
            ["a/3, odd.mp4", 'no frame, "decodes"', "1.23"],
            ["a/5, odd.mp4", 'no frame, "decodes"', "1.23"],
        ]
    assert [e.video_id for e in without(manifest, tmp_path / "quarantine.csv").entries] == list("01246789")


def test_a_second_process_adds_to_the_same_file(tmp_path: Path) -> None:
    manifest = train_split(tmp_path, 10)
    for row in range(2):
        Quarantine(tmp_path / "q.csv", manifest, 1.0).add(DeadVideo(row, "x", "broken"), print)
    assert len((tmp_path / "q.csv").read_text().splitlines()) == 3


def test_what_is_written_is_not_told_and_written_again(tmp_path: Path) -> None:
    """By a run that was resumed, or by the process of another device; both still count it."""
    manifest, told = train_split(tmp_path, 10), []
    for dead in ((3, 5), (5, 7, 3)):
        quarantine = Quarantine(tmp_path / "quarantine.csv", manifest, 0.3)
        for row in dead:
            quarantine.add(DeadVideo(row, str(manifest.path(row)), "broken"), told.append)
        assert quarantine.paths == [str(manifest.path(row)) for row in dead]
    assert told == [f"skipped {manifest.path(row)}: broken" for row in (3, 5, 7)]
    with (tmp_path / "quarantine.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["path", *(f"a/{row}, odd.mp4" for row in (3, 5, 7))]
    with pytest.raises(Findings, match="4 of 10"):
        quarantine.add(DeadVideo(8, "x", "broken"), told.append)


def test_too_many_end_the_run(tmp_path: Path) -> None:
    manifest = train_split(tmp_path, 20)
    quarantine = Quarantine(tmp_path / "quarantine.csv", manifest, 0.05)
    quarantine.add(DeadVideo(0, "x", "broken"), print)  # 5% is not more than 5%
    with pytest.raises(Findings, match=r"2 of 20 training videos cannot be read \(10\.0%\), and dataset\.max_bad_fraction=0\.05"):
        quarantine.add(DeadVideo(1, "x", "broken"), print)
    assert len((tmp_path / "quarantine.csv").read_text().splitlines()) == 3
