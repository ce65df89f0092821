"""From a manifest to clips: open a video, choose frames, read just those, cut the window."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
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
    Sampler,
    ShortRead,
    TrainingTransform,
    Video,
    VideoError,
    ViewTransform,
)

_log = logging.getLogger(__name__)
_Read = TypeVar("_Read")


class TrainingClips(Dataset[Batch]):
    """Maps a ClipKey to a batch of one clip, or of none when the video is dead.

    Frames, window and mirroring derive from (seed, key) alone: workers, ranks and order do not change a clip.
    """

    def __init__(self, manifest: Manifest, decoder: Decoder, sampler: Sampler, transform: TrainingTransform, seed: int) -> None:
        self._manifest = manifest
        self._targets = manifest.targets()
        self._decoder = decoder
        self._sampler = sampler
        self._transform = transform
        self._seed = seed
        self._reasons: dict[int, str] = {}  # dead videos are opened once a worker, not once an epoch

    def __getitem__(self, key: ClipKey) -> Batch:
        row = key.video
        path = self._manifest.path(row)
        if row not in self._reasons:
            try:
                frames, window = read_clips(self._decoder, path, lambda video: self._read(video, key))
            except VideoError as error:
                self._reasons[row] = error.reason
            else:
                return Batch(
                    self._transform.cut(frames, window)[None],
                    torch.tensor([int(self._targets[row])]),
                    torch.tensor([window.flip]),
                    torch.tensor([row]),
                    [],
                )
        return _dead_batch(DeadVideo(row, str(path), self._reasons[row]))

    def _read(self, video: Video, key: ClipKey):
        rng = np.random.default_rng([self._seed, *key])
        indices = self._sampler(video.timestamps, rng)[0]
        window = self._transform.draw(video.height, video.width, rng)
        return video.frames(indices.tolist()), window


class VideoViews(Dataset[Batch]):
    """Maps a video's row to the batch of all its views, clip by clip and window by window, from one decode."""

    def __init__(self, manifest: Manifest, decoder: Decoder, sampler: Sampler, transform: ViewTransform) -> None:
        self._manifest = manifest
        self._targets = manifest.targets()
        self._decoder = decoder
        self._sampler = sampler
        self._transform = transform

    def __len__(self) -> int:
        return len(self._manifest)

    def __getitem__(self, row: int) -> Batch:
        path = self._manifest.path(row)
        try:
            clips = read_views(path, self._decoder, self._sampler, self._transform)
        except VideoError as error:
            return _dead_batch(DeadVideo(row, str(path), error.reason))
        count = len(clips)
        return Batch(
            clips,
            torch.full((count,), int(self._targets[row])),
            torch.zeros(count, dtype=torch.bool),
            torch.full((count,), row),
            [],
        )


def read_views(path: str | Path, decoder: Decoder, sampler: Sampler, transform: ViewTransform) -> UInt8[Tensor, "N T h w 3"]:
    """All views of a video; raises VideoError."""

    def read(video: Video) -> UInt8[Tensor, "N T h w 3"]:
        # No randomness in testing: the generator is there for the contract.
        indices = sampler(video.timestamps, np.random.default_rng(0))
        needed, place = np.unique(indices, return_inverse=True)
        frames = video.frames(needed.tolist())
        # Cut each needed frame once: the clips of a video share most of them.
        cuts = [transform.cut(frames, window) for window in transform.windows(video.height, video.width)]
        place = torch.from_numpy(place.reshape(indices.shape))
        return torch.stack([cut[clip] for clip in place for cut in cuts])

    return read_clips(decoder, path, read)


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
    return Batch(clips, labels, flips, videos, dead)


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
