"""The whole frame: torchvision's size, nothing cut off, and one video a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from videogn.dataset.manifest import Entry, Manifest
from videogn.decoder.pyav import PyAVDecoder
from videogn.encoder.pyav import write_video
from videogn.evaluation.protocol import Protocol, protocol_hash
from videogn.sampler.uniform_clips import UniformClips
from videogn.training.datamodule import ClipData
from videogn.transform.views import Crops, WholeFrame
from videogn.types import InputError

sides = st.integers(1, 300)


@given(sides, sides, st.integers(1, 40))
def test_the_size_is_torchvisions(height: int, width: int, short_side: int) -> None:
    transform = WholeFrame(short_side)
    (window,) = transform.windows(height, width)
    assert window == (0, 0, height, width, False)
    clip = transform.cut(np.zeros((1, height, width, 3), np.uint8), window)
    assert clip.shape[1:3] == v2.functional.resize(torch.empty(1, height, width), [short_side]).shape[1:]


def test_nothing_is_cut_off() -> None:
    """The marks at the ends of the long side are in the view, where the three crops of a square need all three for that."""
    frames = np.zeros((2, 40, 90, 3), np.uint8)
    frames[:, :, :4, 0] = frames[:, :, -4:, 1] = 255
    view = WholeFrame(20).cut(frames, WholeFrame(20).windows(40, 90)[0])
    assert view.shape == (2, 20, 45, 3)
    assert (view[:, :, 0] == torch.tensor([255, 0, 0])).all()
    assert (view[:, :, -1] == torch.tensor([0, 255, 0])).all()
    tall = WholeFrame(20).cut(frames.transpose(0, 2, 1, 3).copy(), WholeFrame(20).windows(90, 40)[0])
    assert torch.equal(tall, view.transpose(1, 2))


def test_the_protocol_says_that_there_is_no_crop() -> None:
    sampler = UniformClips(4, 2, 10)
    whole, cropped = (Protocol(sampler, t).describe("pyav") for t in (WholeFrame(70), Crops(64, 70, 1)))
    assert (whole["crop_size"], whole["crops"], whole["short_side"]) == (None, 1, 70)
    assert protocol_hash(whole) != protocol_hash(cropped)


def test_a_batch_holds_one_video(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = [(32, 48), (48, 32), (32, 40)]
    names = [f"{height}x{width}.mp4" for height, width in shapes]
    for name, shape in zip(names, shapes, strict=True):
        write_video(tmp_path / name, iter(rng.integers(0, 256, (6, *shape, 3), np.uint8)), 25.0)
    manifest = Manifest(tmp_path, tuple(Entry(name, "a", name, "val") for name in names), ("a", "b"))
    protocols = {
        "whole": Protocol(UniformClips(2, 1, 2), WholeFrame(16)),
        "crop": Protocol(UniformClips(2, 1, 2), Crops(16, 16, 1)),
    }
    data = ClipData(manifest, PyAVDecoder(), protocols, protocols["crop"], batch_size=8, num_workers=0)
    whole, crop = zip(*data.test_dataloader(), strict=True)
    assert [tuple(batch.clips.shape) for batch in whole] == [(2, 2, 16, 24, 3), (2, 2, 24, 16, 3), (2, 2, 16, 20, 3)]
    assert [tuple(batch.clips.shape) for batch in crop] == [(2, 2, 16, 16, 3)] * 3  # of the same videos
    crops = {"crop": protocols["crop"]}
    (batch,) = ClipData(manifest, PyAVDecoder(), crops, protocols["crop"], batch_size=8, num_workers=0).test_dataloader()
    assert tuple(batch[0].clips.shape) == (6, 2, 16, 16, 3)


def test_errors_name_the_remedy() -> None:
    with pytest.raises(InputError, match=r"short_side=0; set test_short_side to at least 1"):
        WholeFrame(0)
