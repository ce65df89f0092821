"""Hard videos as a page holds them: pictures and short clips in its text, within so many bytes."""

from __future__ import annotations

import base64
import io
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from videogn.encoder.pyav import even, write_video
from videogn.evaluation.grad_cam import overlaid

_STRIP_FRAMES = 8
_CLIP_FRAMES = 64
_SMALLEST = 16  # pixels, of which browsers show a video


@dataclass(frozen=True)
class Example:
    """A tested video to show: one of the hardest.

    Attributes:
        path: below the data set's root.
        label, answer: the true and the answered class.
        answer_probability, label_probability: what the scores gave them, fractions of 1.
        clip: a view as the network saw it, RGB.
        fps: of the clip, frames per second.
        heat: space-time Grad-CAM of the answer, 0..1.
        reason: why there is no clip: the file has moved, for instance.
    """

    path: str
    label: str
    answer: str
    answer_probability: float
    label_probability: float
    clip: UInt8[np.ndarray, "T H W 3"] | None
    fps: float
    heat: Float32[np.ndarray, "T H W"] | None
    reason: str | None

    def __post_init__(self) -> None:
        if self.clip is not None and self.heat is not None and self.heat.shape != self.clip.shape[:3]:
            raise ValueError(f"{self.path}: heat of {self.heat.shape} for a clip of {self.clip.shape[:3]}; both are (T, H, W)")


@dataclass(frozen=True)
class Media:
    """Data URIs of an example; None where there is no clip, no heat, or no room.

    Attributes:
        poster: the middle frame, WebP.
        clip: H.264 in MP4.
        strip: frames side by side under their heat, WebP.
        size: width and height of the poster and the clip, pixels.
        strip_size: the same of the strip.
        is_reduced: smaller or less than the first of `_LEVELS`, so that the page stays small.
    """

    poster: str | None = None
    clip: str | None = None
    strip: str | None = None
    size: tuple[int, int] = (0, 0)
    strip_size: tuple[int, int] = (0, 0)
    is_reduced: bool = False

    @property
    def num_chars(self) -> int:
        return sum(len(uri) for uri in (self.poster, self.clip, self.strip) if uri)


@dataclass(frozen=True)
class _Level:
    """Long side of the clip and crf, 0 for no clip; long side of a strip's frames, 0 for no strip; quality of the pictures."""

    side: int
    crf: int
    strip_side: int
    quality: int


_LEVELS = (_Level(224, 26, 144, 74), _Level(192, 30, 112, 60), _Level(128, 34, 80, 45), _Level(0, 0, 64, 35), _Level(0, 0, 0, 30))


def encode(examples: Sequence[Example], budget: int) -> list[Media]:
    """Posters, clips and strips of examples, of together at most `budget` characters.

    Each example may take an equal share of what those before it have left; where its best does not fit it becomes smaller, then
    goes without clip, without strip, and without a picture.
    """
    found: list[Media] = []
    with tempfile.TemporaryDirectory() as folder:
        for index, example in enumerate(examples):
            share = (budget - sum(media.num_chars for media in found)) // (len(examples) - index)
            found.append(_fitting(example, share, Path(folder)))
    return found


def _fitting(example: Example, share: int, folder: Path) -> Media:
    if example.clip is None or not example.clip.size:
        return Media()
    for level in _LEVELS:
        media = _encoded(example, example.clip, level, folder, level is not _LEVELS[0])
        if media.num_chars <= share:
            return media
    return Media(is_reduced=True)


def _encoded(example: Example, clip: UInt8[np.ndarray, "T H W 3"], level: _Level, folder: Path, is_reduced: bool) -> Media:
    middle = even(_scaled(clip[len(clip) // 2], level.side or 128), _SMALLEST)
    strip = None if example.heat is None or not level.strip_side else _strip(clip, example.heat, level.strip_side)
    return Media(
        poster=_webp(middle, level.quality),
        clip=_mp4(clip, example.fps, level, folder) if level.side else None,
        strip=None if strip is None else _webp(strip, level.quality),
        size=(middle.shape[1], middle.shape[0]),
        strip_size=(0, 0) if strip is None else (strip.shape[1], strip.shape[0]),
        is_reduced=is_reduced,
    )


def _mp4(clip: UInt8[np.ndarray, "T H W 3"], fps: float, level: _Level, folder: Path) -> str:
    rate = fps if math.isfinite(fps) and fps >= 0.1 else 8.0
    kept = _spread(len(clip), _CLIP_FRAMES)
    path = folder / "clip.mp4"
    frames = (even(_scaled(clip[index], level.side), _SMALLEST) for index in kept)
    write_video(path, frames, max(0.1, rate * len(kept) / len(clip)), crf=level.crf, max_b_frames=2, preset="medium")
    return _uri("video/mp4", path.read_bytes())


def _strip(clip: UInt8[np.ndarray, "T H W 3"], heat: Float32[np.ndarray, "T H W"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    """At most eight frames under their heat, two white columns between them."""
    kept = _spread(len(clip), _STRIP_FRAMES)
    frames = [_scaled(frame, side) for frame in overlaid(clip[kept], np.clip(np.nan_to_num(heat[kept]), 0, 1))]
    gap = np.full((frames[0].shape[0], 2, 3), 255, np.uint8)
    return np.concatenate([part for frame in frames for part in (gap, frame)][1:], 1)


def _spread(num: int, most: int) -> list[int]:
    """At most so many of 0 .. num - 1, the first and the last among them."""
    return np.linspace(0, num - 1, min(num, most)).round().astype(int).tolist()


def _scaled(frame: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    """Its long side at most `side` pixels."""
    height, width = frame.shape[:2]
    factor = min(1.0, side / max(height, width))
    if factor == 1.0:
        return frame
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def _webp(frame: UInt8[np.ndarray, "H W 3"], quality: int) -> str:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "WEBP", quality=quality, method=4)
    return _uri("image/webp", file.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
