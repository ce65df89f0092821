"""From a manifest to clips: open a video, choose frames, read just those, cut the window."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from videogn.dataset.manifest import Manifest
from videogn.types import (
    Batch,
    ClipKey,
    DeadVideo,
    Decoder,
    EpochSampler,
    OpenTimeout,
    Sampler,
    ShortRead,
    TrainingTransform,
    Video,
    VideoError,
    ViewTransform,
    Window,
)

_log = logging.getLogger(__name__)
_Read = TypeVar("_Read")
Cut = Callable[[UInt8[np.ndarray, "T H W 3"], Window], UInt8[Tensor, "T h w 3"]]

# Decoded at once: up to 32 MiB the C library uses memory again that it has; more is fetched from the kernel anew, page by page.
PART_BYTES = 24 * 2**20


class TrainingClips(Dataset[Batch]):
    """Maps a ClipKey to a batch of one clip, or of none when it cannot be read.

    Frames, window, mirroring and appearance derive from (seed, key) alone: workers, ranks and order do not change a clip. So does
    whether it can be read: another clip of a damaged video may. Nothing is remembered but a video on whose opening the decoder
    hangs, which no clip can change: once a worker it costs the deadline, not once an epoch.

    Args:
        shapes: frames, window and appearance of a clip, for each shape that keys ask for.
        seed: with a clip's key, the source of its randomness.
    """

    def __init__(
        self, manifest: Manifest, decoder: Decoder, shapes: Sequence[tuple[Sampler, TrainingTransform]], seed: int
    ) -> None:
        self._manifest = manifest
        self._targets = manifest.targets()
        self._decoder = decoder
        self._shapes = tuple(shapes)
        self._seed = seed
        self._hanging: dict[int, DeadVideo] = {}

    def __getitem__(self, key: ClipKey) -> Batch:
        return self._of_video([key])[0]

    def __getitems__(self, keys: Sequence[ClipKey]) -> list[Batch]:
        """As a loader asks for a batch: clips of one video that follow each other come from one open file."""
        return [batch for _, group in groupby(keys, key=attrgetter("video")) for batch in self._of_video(list(group))]

    def _of_video(self, keys: Sequence[ClipKey]) -> list[Batch]:
        row = keys[0].video
        if row in self._hanging:
            return [_dead_batch(self._hanging[row])] * len(keys)
        path = self._manifest.path(row)
        decoder = trusted(self._decoder, self._manifest, row)
        start = time.monotonic()
        try:
            if len(keys) == 1:
                return read_clips(decoder, path, lambda video: self._read(video, keys))
            with closing(decoder.open(path)) as video:
                return self._read(video, keys)
        except VideoError as error:
            dead = DeadVideo(row, str(path), error.reason, time.monotonic() - start)
            if isinstance(error, OpenTimeout):
                self._hanging[row] = dead
            elif len(keys) > 1:  # each as if it were alone: which clips come together depends on the batch size
                return [batch for key in keys for batch in self._of_video([key])]
            return [_dead_batch(dead)] * len(keys)

    def _read(self, video: Video, keys: Sequence[ClipKey]) -> list[Batch]:
        """Decode what all of the clips need once, and cut each from it."""
        asked, drawn = [], []
        for key in keys:
            rng = np.random.default_rng([self._seed, key.epoch, key.video, key.clip])
            sampler, transform = self._shapes[key.shape]
            indices = sampler(video.timestamps, rng)[0]
            window = transform.draw(video.height, video.width, rng)
            asked.append((indices, window, transform.cut))
            drawn.append((window.flip, transform.draw_appearance(rng)))
        clips = cut_clips(video, asked)
        return [
            Batch(
                clip[None],
                torch.tensor([int(self._targets[key.video])]),
                torch.tensor([flip]),
                torch.tensor([key.video]),
                [],
                None if appearance is None else appearance[None],
            )
            for key, clip, (flip, appearance) in zip(keys, clips, drawn, strict=True)
        ]


class VideoViews(Dataset[list[Batch]]):
    """Maps a video's row to a batch for each protocol, of all its views, clip by clip and window by window; from one decode.

    Args:
        protocols: of each, what chooses the clips, and the windows.
    """

    def __init__(self, manifest: Manifest, decoder: Decoder, protocols: Sequence[tuple[Sampler, ViewTransform]]) -> None:
        self._manifest = manifest
        self._targets = manifest.targets()
        self._decoder = decoder
        self._protocols = list(protocols)

    def __len__(self) -> int:
        return len(self._manifest)

    def __getitem__(self, row: int) -> list[Batch]:
        path = self._manifest.path(row)
        start = time.monotonic()
        try:
            views = read_views(path, trusted(self._decoder, self._manifest, row), self._protocols)
        except VideoError as error:
            dead = DeadVideo(row, str(path), error.reason, time.monotonic() - start)
            return [_dead_batch(dead) for _ in self._protocols]
        return [
            Batch(
                clips,
                torch.full((len(clips),), int(self._targets[row])),
                torch.zeros(len(clips), dtype=torch.bool),
                torch.full((len(clips),), row),
                [],
            )
            for clips in views
        ]


def trusted(decoder: Decoder, manifest: Manifest, row: int) -> Decoder:
    """The decoder within a decoder that has a process of its own, for a file that was verified; else the one given."""
    return getattr(decoder, "direct", decoder) if manifest.is_verified(row) else decoder


def read_views(
    path: str | Path, decoder: Decoder, protocols: Sequence[tuple[Sampler, ViewTransform]]
) -> list[UInt8[Tensor, "_N _T _h _w 3"]]:
    """All views of a video, for each protocol; raises VideoError."""

    def read(video: Video) -> list[UInt8[Tensor, "_N _T _h _w 3"]]:
        places, asked = [], []
        for sampler, transform in protocols:
            # No randomness in testing: the generator is there for the contract.
            indices = sampler(video.timestamps, np.random.default_rng(0))
            needed, place = np.unique(indices, return_inverse=True)
            # Cut each needed frame once: the clips of a video share most of them.
            windows = transform.windows(video.height, video.width)
            places.append((torch.from_numpy(place.reshape(indices.shape)), len(windows)))
            asked += [(needed, window, transform.cut) for window in windows]
        cuts = iter(cut_clips(video, asked))
        views = []
        for place, num_windows in places:
            own = list(islice(cuts, num_windows))
            views.append(torch.stack([cut[clip] for clip in place for cut in own]))
        return views

    return read_clips(decoder, path, read)


def cut_clips(video: Video, asked: Sequence[tuple[Int64[np.ndarray, " _T"], Window, Cut]]) -> list[UInt8[Tensor, "_T _h _w 3"]]:
    """A clip for each of `asked`, frames, window and what cuts it: every frame is decoded once, and cut before the next part is
    decoded."""
    needed = np.unique(np.concatenate([indices for indices, _, _ in asked]))
    step = max(1, PART_BYTES // (video.height * video.width * 3))
    clips: list[Tensor | None] = [None] * len(asked)
    for start in range(0, len(needed), step):
        part = needed[start : start + step]
        frames = video.frames(part.tolist())
        for number, (indices, window, cut) in enumerate(asked):
            places = np.flatnonzero((indices >= part[0]) & (indices <= part[-1]))
            if not len(places):
                continue
            own = indices[places]
            # Most clips are all that was decoded, in its order: no copy.
            pixels = cut(frames if np.array_equal(own, part) else frames[np.searchsorted(part, own)], window)
            if len(places) == len(indices):
                clips[number] = pixels
            else:
                whole = clips[number]
                clips[number] = whole = pixels.new_empty(len(indices), *pixels.shape[1:]) if whole is None else whole
                whole[torch.from_numpy(places)] = pixels
        del frames  # its memory serves the next part
    return [clip for clip in clips if clip is not None]


def read_clips(decoder: Decoder, path: str | Path, read: Callable[[Video], _Read]) -> _Read:
    """`read(video)`, once more where the file held fewer frames than it promised and has recounted."""
    video = decoder.open(path)
    try:
        try:
            return read(video)
        except ShortRead as error:
            _log.debug("%s; the clip is drawn again", error)
            return read(video)
    finally:
        video.close()


def collate(batches: Sequence[Batch]) -> Batch:
    """One batch of the clips that are there."""
    alive = [b for b in batches if len(b.clips)]
    dead = [video for b in batches for video in b.dead]
    if not alive:
        return batches[0]._replace(dead=dead)
    clips, labels, flips, videos = (torch.cat(parts) for parts in zip(*(b[:4] for b in alive), strict=True))
    tables = [b.appearance for b in alive if b.appearance is not None]
    return Batch(clips, labels, flips, videos, dead, torch.cat(tables) if tables else None)


def collate_protocols(videos: Sequence[Sequence[Batch]]) -> list[Batch]:
    """For each protocol one batch, of the clips of all videos that are there."""
    return [collate(batches) for batches in zip(*videos, strict=True)]


class TrainingLoader(DataLoader[Batch]):
    """A DataLoader that knows its place: `state_dict` counts the batches that training has taken, not those fetched ahead."""

    def __init__(self, clips: TrainingClips, batch_sampler: EpochSampler, **options: Any) -> None:
        super().__init__(clips, batch_sampler=batch_sampler, collate_fn=collate, **options)
        self._place = batch_sampler

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for batch in super().__iter__():
            self._place.advance()
            yield batch

    def state_dict(self) -> dict[str, int]:
        return self._place.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._place.load_state_dict(state)


def _dead_batch(dead: DeadVideo) -> Batch:
    nothing: Int64[Tensor, 0] = torch.empty(0, dtype=torch.int64)
    clips: UInt8[Tensor, "0 0 0 0 3"] = torch.empty(0, 0, 0, 0, 3, dtype=torch.uint8)
    return Batch(clips, nothing, nothing.bool(), nothing, [dead])
