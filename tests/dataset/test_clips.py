"""Clips from real files: keyed randomness, dead videos, short reads, one decode for all views."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import videogn.dataset.clips
from videogn.dataset.clips import TrainingClips, VideoViews, collate, cut_clips, read_views
from videogn.dataset.columns import Entry
from videogn.dataset.manifest import Manifest
from videogn.decoder.frames import FramesDecoder
from videogn.decoder.pyav import PyAVDecoder
from videogn.encoder.pyav import write_video
from videogn.sampler.random_clip import RandomClip
from videogn.sampler.spread_clips import SpreadClips
from videogn.sampler.uniform_clips import UniformClips
from videogn.transform.augment import RandomShortSideCrop
from videogn.transform.functional import cut
from videogn.transform.views import Crops, WholeFrame
from videogn.types import Batch, ClipKey, Decoder, OpenTimeout, ShortRead, Video, VideoError, Window


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
    return TrainingClips(manifest, PyAVDecoder(), [(RandomClip(4, 3), RandomShortSideCrop(16, [16, 24], 0.5))], seed=7)


def test_a_clip_depends_on_seed_and_key_alone(manifest: Manifest, clips: TrainingClips) -> None:
    again = TrainingClips(manifest, PyAVDecoder(), [(RandomClip(4, 3), RandomShortSideCrop(16, [16, 24], 0.5))], seed=7)
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
    views = VideoViews(manifest, PyAVDecoder(), [(UniformClips(4, 3, 1), Crops(32, 40, 1))])
    (batch,) = views[1]
    video = PyAVDecoder().open(manifest.path(1))
    frames = video.frames([0, 3, 1, 4])  # 0, 3, 6 - 5, 9 - 5
    expected = torch.from_numpy(frames[:, 4:36, 8:40])
    assert torch.equal(batch.clips[0], expected)


def test_views_equal_a_decode_for_every_clip(manifest: Manifest) -> None:
    sampler, transform = UniformClips(5, 4, 10), Crops(24, 30, 3)
    (together,) = read_views(manifest.path(0), PyAVDecoder(), [(sampler, transform)])
    assert together.shape == (30, 5, 24, 24, 3)
    video = PyAVDecoder().open(manifest.path(0))
    position = 0
    for indices in sampler(video.timestamps, np.random.default_rng(0)):
        for window in transform.windows(video.height, video.width):
            alone = transform.cut(video.frames(indices.tolist()), window)
            assert torch.equal(together[position], alone)
            position += 1


@pytest.mark.parametrize("frames_at_once", [1, 3, 7, 1000])
def test_clips_do_not_depend_on_how_many_frames_are_decoded_at_once(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, frames_at_once: int
) -> None:
    """Against every clip decoded alone: clips that overlap, loop, lie apart, and ask for a frame twice."""
    video = PyAVDecoder().open(manifest.path(0))
    orders = [[0, 3, 6, 9], [9, 12, 0, 3], [20, 20, 29, 1], [25, 26, 27, 28]]
    asked = [(np.array(order), Window(k, 2 * k, 20 + k, 24, False)) for k, order in enumerate(orders)]
    expected = [cut(video.frames(order), window, (16, 16)) for order, (_, window) in zip(orders, asked, strict=True)]
    readings = []
    real_frames = video.frames
    monkeypatch.setattr(video, "frames", lambda indices: readings.append(indices) or real_frames(indices))
    monkeypatch.setattr(videogn.dataset.clips, "PART_BYTES", frames_at_once * video.height * video.width * 3)
    to_size = partial(cut, size=(16, 16))
    clips = cut_clips(video, [(indices, window, to_size) for indices, window in asked])
    assert all(torch.equal(clip, alone) for clip, alone in zip(clips, expected, strict=True))
    assert [index for reading in readings for index in reading] == sorted({index for order in orders for index in order})
    assert max(map(len, readings)) <= frames_at_once


def test_protocols_share_one_decode(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is given the views it would have alone, and no frame is decoded twice."""
    protocols = [
        (UniformClips(5, 4, 10), Crops(24, 30, 3)),
        (SpreadClips(4, 2, 3), WholeFrame(20)),
        (UniformClips(3, 1, 1), Crops(24, 24, 1)),
    ]
    alone = [read_views(manifest.path(0), PyAVDecoder(), [protocol])[0] for protocol in protocols]
    decoded: list[int] = []
    video = PyAVDecoder().open(manifest.path(0))
    read = type(video).frames
    monkeypatch.setattr(type(video), "frames", lambda self, indices: decoded.extend(indices) or read(self, indices))
    together = read_views(manifest.path(0), PyAVDecoder(), protocols)
    assert all(torch.equal(views, other) for views, other in zip(together, alone, strict=True))
    chosen = [sampler(video.timestamps, np.random.default_rng(0)) for sampler, _ in protocols]
    assert sorted(decoded) == np.unique(np.concatenate([indices.ravel() for indices in chosen])).tolist()


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
    (views,) = read_views("x.mp4", Promising(), [(UniformClips(2, 1, 3), Crops(16, 16, 1))])
    # Starts floor(k * 6 / 3), from the frames that are there; never the ten that were promised.
    assert views[:, :, 0, 0, 0].tolist() == [[0, 1], [2, 3], [4, 5]]
    training = TrainingClips(manifest, Promising(), [(RandomClip(4, 1), RandomShortSideCrop(16, [16, 16], 0.0))], seed=0)
    for epoch in range(20):
        batch = training[ClipKey(epoch, 0, 0)]
        first = int(batch.clips[0, 0, 0, 0, 0])
        assert batch.clips[0, :, 0, 0, 0].tolist() == [first, first + 1, first + 2, first + 3]
        assert first <= 2


class Failing:
    """A decoder with a fault: what comes when a video is opened, and what when it is read."""

    name = "failing"

    def __init__(self, on_open: type[VideoError] | None = None, on_read: type[VideoError] | None = None) -> None:
        self.on_open, self.on_read = on_open, on_read
        self.opened = 0

    def open(self, path: str | Path) -> Video:
        self.opened += 1
        if self.on_open is not None:
            raise self.on_open(path, "hangs")
        video = Promised(path)
        if self.on_read is not None:
            video.frames = self.fail  # type: ignore[method-assign]
        return video

    def fail(self, indices: Sequence[int]) -> np.ndarray:
        assert self.on_read is not None
        raise self.on_read("x", "hangs")


def training(manifest: Manifest, decoder: Decoder, length: int = 4) -> TrainingClips:
    return TrainingClips(manifest, decoder, [(RandomClip(length, 1), RandomShortSideCrop(16, [16, 16], 0.5))], seed=3)


@pytest.mark.parametrize("clips_together", [1, 3])
@pytest.mark.parametrize(
    ("options", "opened"),
    [
        # 4 epochs. Only what no clip can change and costs a deadline is remembered.
        ({"on_open": OpenTimeout}, {1: 1, 3: 1}),
        ({"on_open": VideoError}, {1: 4, 3: 16}),
        ({"on_read": VideoError}, {1: 4, 3: 16}),
    ],
    ids=["hangs_on_open", "fails_on_open", "fails_on_reading"],
)
def test_what_is_remembered_of_a_dead_video(
    manifest: Manifest, options: dict[str, type[VideoError]], opened: dict[int, int], clips_together: int
) -> None:
    decoder = Failing(**options)
    clips = training(manifest, decoder)
    for epoch in range(4):
        for batch in clips.__getitems__([ClipKey(epoch, 0, clip) for clip in range(clips_together)]):
            assert len(batch.clips) == 0
            assert [dead.reason for dead in batch.dead] == ["hangs"]
    assert decoder.opened == opened[clips_together]


def test_a_video_that_could_not_be_read_for_a_while_is_read_again(manifest: Manifest) -> None:
    """As the run does that is resumed, or another worker."""
    decoder = Failing(on_open=VideoError)
    clips = training(manifest, decoder)
    assert len(clips[ClipKey(0, 0, 0)].clips) == 0
    decoder.on_open, decoder.on_read = None, VideoError
    assert len(clips[ClipKey(0, 0, 0)].clips) == 0
    decoder.on_read = None
    assert len(clips[ClipKey(0, 0, 0)].clips) == 1


@pytest.mark.parametrize("broken", ["size", "content"])
def test_what_is_read_of_a_damaged_video_depends_on_the_key_alone(tmp_path: Path, broken: str) -> None:
    """Not on the clips before it, as they differ between workers and in a resumed run, nor on those of its batch."""
    (tmp_path / "v").mkdir()
    for place in range(8):
        Image.fromarray(np.full((16, 16, 3), 10 * place, np.uint8)).save(tmp_path / "v" / f"{place}.png")
    if broken == "size":
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "v" / "6.png")
    else:
        (tmp_path / "v" / "6.png").write_bytes(b"")
    manifest = Manifest(tmp_path, (Entry("v", "a", "v", "train"),), ("a", "b"))
    keys = [ClipKey(epoch, 0, clip) for epoch in range(6) for clip in range(3)]
    expected = [said(training(manifest, FramesDecoder(), 2)[key]) for key in keys]
    pixels = {clip for clip, _ in expected}
    assert len(pixels) > 2
    assert (b"" in pixels) == (broken == "size")  # else the clip is drawn again from the others
    ordered, backwards, together = (training(manifest, FramesDecoder(), 2) for _ in range(3))
    assert [said(ordered[key]) for key in keys] == expected
    assert [said(backwards[key]) for key in keys[::-1]] == expected[::-1]
    for size in (2, 3, len(keys)):
        groups = [keys[start : start + size] for start in range(0, len(keys), size)]
        assert [said(batch) for group in groups for batch in together.__getitems__(group)] == expected


def said(batch: Batch) -> tuple[bytes, tuple[str, ...]]:
    return batch.clips.numpy().tobytes(), tuple(dead.reason for dead in batch.dead)


class Counting:
    """PyAV, counting what it opens and decodes."""

    name = "pyav"

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.decoded: list[list[int]] = []

    def open(self, path: str | Path) -> Video:
        self.opened.append(Path(path).name)
        video = PyAVDecoder().open(path)
        frames = video.frames

        def counted(indices: Sequence[int]) -> np.ndarray:
            self.decoded.append(list(indices))
            return frames(indices)

        video.frames = counted  # type: ignore[method-assign]
        return video


def test_clips_of_a_video_come_from_one_open_file_and_are_the_same(manifest: Manifest) -> None:
    decoder = Counting()
    clips = TrainingClips(manifest, decoder, [(RandomClip(6, 3), RandomShortSideCrop(16, [16, 24], 0.5))], seed=7)
    keys = [
        *(ClipKey(0, 0, clip) for clip in range(3)),
        *(ClipKey(0, 1, clip) for clip in range(2)),
        ClipKey(0, 2, 0),
        ClipKey(0, 0, 3),
    ]
    together = clips.__getitems__(keys)
    assert decoder.opened == ["long.mp4", "short.mp4", "noise.mp4", "long.mp4"]
    assert all(indices == sorted(set(indices)) for indices in decoder.decoded)  # each frame once, in order
    for key, one in zip(keys, together, strict=True):
        alone = TrainingClips(manifest, PyAVDecoder(), [(RandomClip(6, 3), RandomShortSideCrop(16, [16, 24], 0.5))], seed=7)[key]
        assert torch.equal(one.clips, alone.clips)
        assert torch.equal(one.flips, alone.flips)
        assert [dead.reason for dead in one.dead] == [dead.reason for dead in alone.dead]


class Apart(Counting):
    """As a decoder in a process of its own is: it offers the one in it."""

    def __init__(self) -> None:
        super().__init__()
        self.direct = Counting()


def test_a_verified_file_is_opened_here_and_a_changed_one_apart(manifest: Manifest) -> None:
    sizes = [(manifest.root / name).stat().st_size for name in ("long.mp4", "short.mp4")]
    rows = [e._replace(num_bytes=size) for e, size in zip(manifest.entries[:2], [sizes[0], sizes[1] + 1], strict=True)]
    verified = Manifest(manifest.root, rows, manifest.classes)
    decoder = Apart()
    clips = TrainingClips(verified, decoder, [(RandomClip(4, 3), RandomShortSideCrop(16, [16, 24], 0.5))], seed=7)
    views = VideoViews(verified, decoder, [(UniformClips(4, 3, 1), Crops(32, 40, 1))])
    for row in range(2):
        assert len(clips[ClipKey(0, row, 0)].clips) == len(views[row][0].clips) == 1
    assert decoder.direct.opened == ["long.mp4"] * 2
    assert decoder.opened == ["short.mp4"] * 2
