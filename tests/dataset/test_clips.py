"""Clips from real files: keyed randomness, dead videos, short reads, one decode for all views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from videogn.dataset.clips import TrainingClips, VideoViews, collate, read_views
from videogn.dataset.manifest import Entry, Manifest
from videogn.decoder.pyav import PyAVDecoder
from videogn.encoder.pyav import write_video
from videogn.sampler.random_clip import RandomClip
from videogn.sampler.uniform_clips import UniformClips
from videogn.transform.augment import RandomShortSideCrop
from videogn.transform.views import Crops
from videogn.types import ClipKey, ShortRead


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """A long video, one shorter than a clip, and one that cannot be read."""
    rng = np.random.default_rng(0)
    for name, count in (("long.mp4", 30), ("short.mp4", 5)):
        write_video(tmp_path / name, iter(rng.integers(0, 256, (count, 40, 48, 3), np.uint8)), 25.0)
    (tmp_path / "noise.mp4").write_bytes(rng.bytes(5000))
    names = ("long.mp4", "short.mp4", "noise.mp4")
    return Manifest(tmp_path, tuple(Entry(n, label, n, "train") for n, label in zip(names, "aba", strict=True)), ("a", "b"))


@pytest.fixture
def clips(manifest: Manifest) -> TrainingClips:
    return TrainingClips(manifest, PyAVDecoder(), RandomClip(4, 3), RandomShortSideCrop(16, [16, 24], 0.5), seed=7)


def test_a_clip_depends_on_seed_and_key_alone(manifest: Manifest, clips: TrainingClips) -> None:
    again = TrainingClips(manifest, PyAVDecoder(), RandomClip(4, 3), RandomShortSideCrop(16, [16, 24], 0.5), seed=7)
    keys = [ClipKey(epoch, 0, clip) for epoch in range(4) for clip in range(2)]
    first = [clips[key] for key in keys]
    second = [again[key] for key in reversed(keys)][::-1]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.clips, other.clips)
        assert torch.equal(one.flips, other.flips)
    # Another epoch or clip of the same video is another sample.
    assert len({one.clips.numpy().tobytes() for one in first}) == len(keys)
    assert {bool(one.flips) for one in first} == {True, False}


def test_a_dead_video_is_an_empty_batch_with_its_reason(clips: TrainingClips) -> None:
    batch = collate([clips[ClipKey(0, 2, 0)], clips[ClipKey(0, 0, 0)], clips[ClipKey(0, 1, 0)]])
    assert batch.clips.shape == (2, 4, 16, 16, 3)
    assert batch.labels.tolist() == [0, 1]
    assert batch.videos.tolist() == [0, 1]
    (dead,) = batch.dead
    assert dead.video == 2
    assert dead.path.endswith("noise.mp4")
    assert dead.reason
    assert len(collate([clips[ClipKey(0, 2, 0)]]).clips) == 0


def test_a_video_shorter_than_the_clip_loops(manifest: Manifest) -> None:
    views = VideoViews(manifest, PyAVDecoder(), UniformClips(4, 3, 1), Crops(32, 40, 1))
    batch = views[1]
    video = PyAVDecoder().open(manifest.path(1))
    frames = video.frames([0, 3, 1, 4])  # 0, 3, 6 - 5, 9 - 5
    expected = torch.from_numpy(frames[:, 4:36, 8:40])
    assert torch.equal(batch.clips[0], expected)


def test_views_equal_a_decode_for_every_clip(manifest: Manifest) -> None:
    sampler, transform = UniformClips(5, 4, 10), Crops(24, 30, 3)
    together = read_views(manifest.path(0), PyAVDecoder(), sampler, transform)
    assert together.shape == (30, 5, 24, 24, 3)
    video = PyAVDecoder().open(manifest.path(0))
    position = 0
    for indices in sampler(video.timestamps, np.random.default_rng(0)):
        for window in transform.windows(video.height, video.width):
            alone = transform.cut(video.frames(indices.tolist()), window)
            assert torch.equal(together[position], alone)
            position += 1


class Promising:
    """A decoder whose video promises ten frames, and has six once it is read."""

    name = "promising"

    def open(self, path: str | Path) -> Promised:
        return Promised(path)


class Promised:
    num_frames, fps, height, width = 10, 25.0, 16, 16

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.timestamps = np.arange(10.0)
        self.closed = False

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        if max(indices) >= 6:
            self.timestamps, self.num_frames = np.arange(6.0), 6
            raise ShortRead(self.path, "6 of 10 frames decode")
        return np.stack([np.full((16, 16, 3), index, np.uint8) for index in indices])

    def close(self) -> None:
        self.closed = True


def test_after_a_short_read_the_clip_is_drawn_again(manifest: Manifest) -> None:
    views = read_views("x.mp4", Promising(), UniformClips(2, 1, 3), Crops(16, 16, 1))
    # Starts floor(k * 6 / 3), from the frames that are there; never the ten that were promised.
    assert views[:, :, 0, 0, 0].tolist() == [[0, 1], [2, 3], [4, 5]]
    training = TrainingClips(manifest, Promising(), RandomClip(4, 1), RandomShortSideCrop(16, [16, 16], 0.0), seed=0)
    for epoch in range(20):
        batch = training[ClipKey(epoch, 0, 0)]
        first = int(batch.clips[0, 0, 0, 0, 0])
        assert batch.clips[0, :, 0, 0, 0].tolist() == [first, first + 1, first + 2, first + 3]
        assert first <= 2
