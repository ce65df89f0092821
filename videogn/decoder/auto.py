"""Reads videos with PyAV, or with another decoder what that one gets right; folders of images with Pillow."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from videogn.decoder.decord import DecordDecoder
from videogn.decoder.frames import FramesDecoder
from videogn.decoder.pyav import PyAVDecoder
from videogn.decoder.torchcodec import TorchCodecDecoder
from videogn.types import Declined, Decoder, InputError, ShortRead, Video

logger = logging.getLogger(__name__)

_DECLINING = {"decord": DecordDecoder, "torchcodec": TorchCodecDecoder}


class AutoDecoder:
    """Opens every video: with the preferred decoder, and with PyAV what that one declines. All give the same frames.

    Args:
        prefer: "pyav", "decord" or "torchcodec".
        frames: opens folders of images.

    Raises:
        InputError: no such decoder, or it cannot be imported here.
    """

    name = "auto"

    def __init__(self, prefer: str = "pyav", frames: FramesDecoder | None = None) -> None:
        if prefer != "pyav" and prefer not in _DECLINING:
            raise InputError(f"decoder.prefer={prefer!r}: give pyav, {' or '.join(_DECLINING)}")
        self._frames = frames or FramesDecoder()
        self._pyav = PyAVDecoder()
        self._preferred: Decoder = _DECLINING[prefer]() if prefer in _DECLINING else self._pyav
        logger.info("decoder: %s", "pyav" if prefer == "pyav" else f"{prefer}, pyav for files that {prefer} declines")

    def open(self, path: str | Path) -> Video:
        if Path(path).is_dir():
            return self._frames.open(path)
        if self._preferred is self._pyav:
            return self._pyav.open(path)
        try:
            return AutoVideo(Path(path), self._preferred.open(path), self._pyav)
        except Declined:
            return self._pyav.open(path)


class AutoVideo:
    """A video that another decoder has taken, and that PyAV takes over where that one fails to decode a frame."""

    def __init__(self, path: Path, video: Video, successor: PyAVDecoder) -> None:
        self._path = path
        self._successor = successor
        self._take(video)

    def frames(self, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        try:
            return self._video.frames(indices)
        except Declined:
            self._video.close()
        except ShortRead:
            self._take(self._video)  # it has recounted
            raise
        promised = self.timestamps
        self._take(self._successor.open(self._path))
        if not np.array_equal(promised, self.timestamps):
            raise ShortRead(self._path, f"{self.num_frames} frames decode of the {len(promised)} promised")
        return self.frames(indices)

    def close(self) -> None:
        self._video.close()

    def _take(self, video: Video) -> None:
        self._video = video
        self.timestamps, self.num_frames = video.timestamps, video.num_frames
        self.fps, self.height, self.width = video.fps, video.height, video.width
