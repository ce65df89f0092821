"""What is in a video file: a full decode, and the hash of its bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from videogn.decoder.whole import WholeVideo
from videogn.types import VideoError

OK, PARTIAL = "ok", "partial"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Facts:
    """What a full decode finds in a video file.

    Attributes:
        num_frames: that decode.
        fps: average frame rate in frames per second.
        height, width: pixels, upright.
        codec: FFmpeg's name, as h264.
        duration_seconds: from the first frame until the last one ends.
        num_bytes: size of the file.
        sha256: of the file.
        status: "ok", or "partial" where frames are missing that the file promises.
    """

    num_frames: int
    fps: float
    height: int
    width: int
    codec: str
    duration_seconds: float
    num_bytes: int
    sha256: str
    status: str

    @classmethod
    def of(cls, path: Path, video: WholeVideo) -> Facts:
        """Of a video whose frames have all been taken.

        Raises:
            VideoError: the file's bytes cannot be read.
        """
        height, width = video.probe.upright_size
        seconds = video.seconds
        num_bytes, sha256 = content(path)
        return cls(
            num_frames=len(seconds),
            fps=round(video.probe.fps, 6),
            height=height,
            width=width,
            codec=video.probe.codec,
            duration_seconds=round(duration(seconds, video.probe.fps), 6),
            num_bytes=num_bytes,
            sha256=sha256,
            status=PARTIAL if video.is_partial else OK,
        )


def verify(path: Path) -> Facts:
    """Decode every frame of a video.

    Raises:
        VideoError: it cannot be read; a video of which some frames decode is "partial".
        MemoryError: there was not enough memory to find out.
    """
    video = WholeVideo(path)
    for _ in video.frames():
        pass
    return Facts.of(path, video)


def duration(seconds: Float64[np.ndarray, " F"], fps: float) -> float:
    """Seconds from the first frame until the last one, shown for 1 / fps, ends."""
    return float(seconds[-1] - seconds[0]) + 1 / fps


def content(path: Path) -> tuple[int, str]:
    """Size in bytes, and SHA-256."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise VideoError(path, f"cannot be read: {error.strerror}") from error
    return size, digest.hexdigest()
