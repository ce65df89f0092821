"""Folders of images as videos, from the files to a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from videogn.dataset.clips import VideoViews
from videogn.dataset.frames import Frames
from videogn.dataset.path_list import PathList
from videogn.decoder.auto import AutoDecoder
from videogn.sampler.uniform_clips import UniformClips
from videogn.transform.views import Crops
from videogn.types import InputError


def write(folder: Path, rng: np.random.Generator, count: int = 12) -> np.ndarray:
    """img_1.png to img_12.png: in the order of letters 10 would come before 2."""
    folder.mkdir(parents=True)
    pictures = rng.integers(0, 256, (count, 16, 16, 3), np.uint8)
    for number, picture in enumerate(pictures, start=1):
        Image.fromarray(picture).save(folder / f"img_{number}.png")
    return pictures


def frames(root: Path) -> Frames:
    return Frames(str(root), groups=None, group_by=None, split_seed=0, classes=None, flip=0.5)


def test_every_folder_that_holds_an_image_is_a_video(tmp_path: Path, rng: np.random.Generator) -> None:
    pictures = {name: write(tmp_path / name, rng) for name in ("run/a b", "run/day 1/c", "jump/d", "jump/e")}
    (tmp_path / "run" / "notes").mkdir()
    (tmp_path / "run" / "notes" / "readme.txt").touch()
    (tmp_path / "run" / "thumbnail.png").write_bytes((tmp_path / "jump/d/img_1.png").read_bytes())  # of the class, not of a video
    manifest = frames(tmp_path).manifest()
    assert sorted((e.path, e.label) for e in manifest.entries) == [
        ("jump/d", "jump"),
        ("jump/e", "jump"),
        ("run/a b", "run"),
        ("run/day 1/c", "run"),
    ]
    views = VideoViews(manifest, AutoDecoder(), [(UniformClips(4, 3, 1), Crops(16, 16, 1))])
    for row, entry in enumerate(manifest.entries):
        assert torch.equal(views[row][0].clips[0], torch.from_numpy(pictures[entry.path][[0, 3, 6, 9]]))


def test_a_class_without_images(tmp_path: Path, rng: np.random.Generator) -> None:
    write(tmp_path / "run/a", rng, 1)
    (tmp_path / "jump").mkdir()
    with pytest.raises(InputError, match=r"jump: a class folder without a folder of images; add some or remove the folder"):
        frames(tmp_path).manifest()


def test_mmaction2_lists_of_images(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("run/a b", "run/c", "jump/d", "jump/e"):
        write(tmp_path / name, rng, 2)
    (tmp_path / "train.txt").write_text("run/a b 2 0\nrun/c 2 0\njump/d 2 1\n")
    (tmp_path / "val.txt").write_text("jump/e 2 1\n")
    lists = {name: str(tmp_path / f"{name}.txt") for name in ("train", "val")}
    manifest = PathList(None, lists["train"], lists["val"], None, None, None, None, 0, 0.5).manifest()
    assert [(e.path, e.label) for e in manifest.entries] == [("run/a b", "0"), ("run/c", "0"), ("jump/d", "1"), ("jump/e", "1")]
