"""What a configuration computes has one name, and what it does not has none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videogn.configuration import compose, resolved
from videogn.identity import config_hash


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def name(*overrides: str, out: str = "out") -> str:
    return config_hash(resolved(compose("train", ["total_steps=1", f"out={out}", *overrides])))


def video(path: str, size: int = 1) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(bytes(size))


def test_a_linked_folder_of_videos_counts(tmp_path: Path) -> None:
    """The data sets follow links; a link back to a folder above ends, as it does there."""
    words = ("dataset=class_folder", "dataset.root=root")
    video("elsewhere/run/0.mp4")
    video("root/walk/0.mp4")
    Path("root/run").symlink_to(tmp_path / "elsewhere/run")
    before = name(*words)
    video("elsewhere/run/1.mp4")
    assert (after := name(*words)) != before
    Path("root/walk/back").symlink_to(tmp_path / "root")
    assert name(*words) == after


def test_the_outputs_beside_the_videos_do_not_count() -> None:
    """`dataset.root=.`, whose runs/ grows by every line of a log."""
    video("walk/0.mp4")
    words = ("dataset=class_folder", "dataset.root=.")
    before = name(*words)
    video("runs/sweep/s/a/log.txt")
    assert name(*words) == before
    video("walk/runs/0.mp4")
    assert name(*words) != before


def test_a_run_to_start_from_counts_by_its_weights() -> None:
    """Trained anew with another seed, last.ckpt has other bytes and the same size; a page written anew changes no weight."""
    words = ("weight=run", "weight.path=run", "dataset.root=x")
    video("run/checkpoint/last.ckpt", 5)
    before = name(*words)
    video("run/report.html", 7)
    assert name(*words) == before
    Path("run/checkpoint/last.ckpt").write_bytes(b"other")
    assert name(*words) != before


def test_where_weights_are_fetched_to_does_not_count() -> None:
    """The first job fetches them: the same command again would find another name for every job."""
    Path("cache").mkdir()
    words = ("weight=torchvision", "weight.cache=cache", "dataset.root=x")
    before = name(*words)
    video("cache/resnet50.pth")
    assert name(*words) == before == name(*words[::2])


def test_what_a_run_writes_does_not_count(tmp_path: Path) -> None:
    """callback.best.dirpath lies in the run folder, whose checkpoints are there when result.json is written."""
    video("a/checkpoint/last.ckpt", 10)
    video("b/checkpoint/last.ckpt", 11)
    places = ("a", "b", "none", str(tmp_path / "a"))
    assert len({name("dataset.root=x", out=place) for place in places}) == 1


def test_a_folder_is_walked_once_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study of 60 jobs asks a network's disk for its files once."""
    video("root/walk/0.mp4")
    video("root/walk/1.mp4")
    config = resolved(compose("train", ["total_steps=1", "out=x", "dataset=class_folder", "dataset.root=root"]))
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(path), scandir(path))[1])
    contents: dict[str, str] = {}
    names = {config_hash(config, contents) for _ in range(3)}
    assert len(names) == 1
    assert len(listed) == 2


@pytest.mark.parametrize("key", ["outlier_share", "search_radius", "loggers"])
def test_a_key_of_a_users_own_counts(key: str) -> None:
    """Also where it begins as one that does not."""
    assert config_hash({key: 0}) != config_hash({key: 1})


def test_a_key_that_came_later_leaves_the_names_of_jobs_as_they_were() -> None:
    """Studies that began before there was `search` go on."""
    now = resolved(compose("train", ["dataset.root=x", "total_steps=1", "out=x"]))
    before = {key: value for key, value in now.items() if key != "search"}
    assert before.keys() != now.keys()
    assert config_hash(before) == config_hash(now)


def test_a_weight_file_counts_by_its_bytes() -> None:
    """Also where its name has no folder in it."""
    config = resolved(compose("train", ["weight=torchvision", "weight.path=w.pth"]))
    names = set()
    for content in (b"one", b"two"):
        Path("w.pth").write_bytes(content)
        names.add(config_hash(config))
    assert len(names) == 2
