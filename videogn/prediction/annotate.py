"""A video with what it shows written into it, moment by moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw

from videogn.encoder.pyav import even, write_video
from videogn.prediction.answer import Answer, ranked
from videogn.prediction.classifier import FramePart
from videogn.prediction.lettering import fitted, font
from videogn.prediction.timeline import Timeline
from videogn.whole import whole

NUM_LABELS = 3


class Panel(NamedTuple):
    """What is laid over the lower left corner of a frame."""

    colours: Float32[np.ndarray, "h w 3"]  # 0..255
    share: Float32[np.ndarray, "h w 1"]  # of the panel; the rest is the frame's


def write_annotated(path: Path, parts: Iterable[FramePart], timeline: Timeline) -> None:
    """Write all frames with the labels of their moment, at the average frame rate, without sound.

    Raises:
        VideoError: the frames cannot be read.
        InputError: the suffix names no container.
    """
    parts = iter(parts)
    first = next(parts)
    with whole(path) as unfinished:
        write_video(unfinished, annotated(chain([first], parts), timeline), max(first.fps, 0.01))


def annotated(parts: Iterable[FramePart], timeline: Timeline) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Every frame under the most probable labels of the piece of the timeline that it lies in; sizes made even by repeating the
    last row or column."""
    pieces = timeline.pieces()
    piece = next(pieces)
    drawn = None
    for part in parts:
        for seconds, frame in zip(part.seconds.tolist(), part.frames, strict=True):
            while seconds >= piece.end_seconds and (following := next(pieces, None)) is not None:
                piece, drawn = following, None
            pixels = even(frame)
            if drawn is None:
                drawn = panel(ranked(piece.probabilities, timeline.classes, NUM_LABELS), *pixels.shape[:2])
            yield overlaid(pixels, drawn)


def panel(answers: Sequence[Answer], height: int, width: int) -> Panel:
    """The labels with their probabilities over bars, for a frame of this size.

    Letters are 4.5% of the frame's short side high, 8 pixels at least: three rows stand in a frame of 64 x 64.
    """
    size = max(8, round(0.045 * min(height, width)))
    row, margin = round(1.3 * size), round(0.3 * size)
    answers = answers[: max(1, (height - 2 * margin) // row)]
    full = min(width, 15 * size)
    image = Image.new("RGBA", (full, min(height, len(answers) * row + 2 * margin)), (0, 0, 0, 170))
    draw = ImageDraw.Draw(image)
    for place, (label, probability) in enumerate(answers):
        top = margin + place * row
        bar = round((full - 2 * margin) * probability)
        if bar > 0:
            draw.rectangle((margin, top, margin + bar - 1, top + row - max(2, row // 8)), (30, 110, 200, 210))
        percent = f"{probability:.0%}"
        room = full - 3 * margin - font(size).getlength(percent)
        middle = top + row // 2
        draw.text((1.5 * margin, middle), fitted(label, size, room - margin), (255, 255, 255, 255), font(size), anchor="lm")
        draw.text((full - margin, middle), percent, (255, 255, 255, 255), font(size), anchor="rm")
    pixels = np.asarray(image, np.float32)
    return Panel(pixels[..., :3], pixels[..., 3:] / 255)


def overlaid(frame: UInt8[np.ndarray, "H W 3"], panel: Panel) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of the frame with the panel in its lower left corner."""
    height, width = panel.colours.shape[:2]
    out = np.array(frame, order="C")
    corner = out[-height:, :width]
    corner[:] = (corner * (1 - panel.share) + panel.colours * panel.share).round().astype(np.uint8)
    return out
