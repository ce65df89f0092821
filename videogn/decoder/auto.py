"""Reads each video with decord where decord gets it right, else with PyAV."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from videogn.decoder.decord import DecordDecoder
from videogn.decoder.pyav import PyAVDecoder
from videogn.types import Declined, InputError, ShortRead, Video

logger = logging.getLogger(__name__)


class AutoDecoder:
    """decord where it can be imported, and PyAV for what decord declines; both give the same frames."""

    name = "auto"

    def __init__(self) -> None:
        self._pyav = PyAVDecoder()
        try:
            self._decord = DecordDecoder()
        except InputError:
            self._decord = None
            logger.info("decoder: PyAV (decord has no wheel here)")
        else:
            logger.info("decoder: decord, PyAV for files that decord declines")

    def open(self, path: str | Path) -> Video:
        if self._decord is None:
            return self._pyav.open(path)
        try:
            return AutoVideo(Path(path), self._decord.open(path), self._pyav)
        except Declined:
            return self._pyav.open(path)


class AutoVideo:
    """A video that decord has taken, and that PyAV takes over where decord fails to decode a frame."""

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
