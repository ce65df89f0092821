"""Where and when a class was seen, as a video and as a contact sheet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from PIL import Image, ImageDraw

from videogn.encoder.pyav import even, write_video
from videogn.evaluation.grad_cam import overlaid
from videogn.prediction.lettering import fitted, font
from videogn.whole import whole

MAX_TILES, COLUMNS, MIN_TILE_WIDTH, LETTERS, MARGIN = 16, 4, 160, 14, 6


@dataclass(frozen=True, eq=False)
class Explanation:
    """Grad-CAM of the answered class, in the view of a video that is surest of it.

    Attributes:
        clip: the frames that were scored, cut and resized.
        heat: from 0 to 1, how much each position spoke for the class; see `videogn.evaluation.grad_cam`.
        label: the answered class.
        probability: its probability, of the video as `predict` gives it.
        seconds: when each frame is shown, from the video's first frame; a short video that loops comes round.
    """

    clip: UInt8[np.ndarray, "T H W 3"]
    heat: Float32[np.ndarray, "T H W"]
    label: str
    probability: float
    seconds: Float64[np.ndarray, " T"]

    @property
    def fps(self) -> float:
        """Frames of the clip in a second, from 1 to 60."""
        steps = np.diff(self.seconds)
        steps = steps[steps > 0]
        return min(60.0, max(1.0, 1 / float(np.median(steps)))) if len(steps) else 1.0

    def overlaid(self) -> UInt8[np.ndarray, "T H W 3"]:
        """The frames under their heat."""
        return overlaid(self.clip, self.heat)


def write_explanation(stem: Path, explanation: Explanation, title: str) -> None:
    """Write `stem`.mp4, the clip beside its overlay at its own speed, and `stem`.png, the contact sheet."""
    with whole(stem.with_name(f"{stem.name}.mp4")) as unfinished:
        write_video(unfinished, iter(side_by_side(explanation)), explanation.fps)
    with whole(stem.with_name(f"{stem.name}.png")) as unfinished:
        contact_sheet(explanation, title).save(unfinished)


def side_by_side(explanation: Explanation) -> UInt8[np.ndarray, "T H2 W2 3"]:
    """The clip on the left, the same under its heat on the right; a last row or column is repeated where sizes are odd."""
    both = np.concatenate([explanation.clip, explanation.overlaid()], 2)
    return even(both)


def contact_sheet(explanation: Explanation, title: str) -> Image.Image:
    """At most 16 frames under their heat, evenly chosen from first to last, each with its time; label and probability above."""
    length, height, width = explanation.heat.shape
    chosen = np.linspace(0, length - 1, min(length, MAX_TILES)).round().astype(int).tolist()
    scale = max(1, math.ceil(MIN_TILE_WIDTH / width))
    tile_height, tile_width, line = height * scale, width * scale, round(1.5 * LETTERS)
    columns = min(COLUMNS, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    full_width = columns * (tile_width + MARGIN) + MARGIN
    sheet = Image.new("RGB", (full_width, 2 * line + MARGIN + rows * (tile_height + line) + MARGIN), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    percent = f"  {explanation.probability:.1%}"
    room = full_width - 2 * MARGIN
    label = fitted(explanation.label, LETTERS + 2, room - font(LETTERS + 2).getlength(percent))
    draw.text((MARGIN, MARGIN), label + percent, (0, 0, 0), font(LETTERS + 2))
    draw.text((MARGIN, MARGIN + line), fitted(title, LETTERS, room), (90, 90, 90), font(LETTERS))
    frames = explanation.overlaid()
    for place, index in enumerate(chosen):
        left = MARGIN + place % columns * (tile_width + MARGIN)
        top = 2 * line + MARGIN + place // columns * (tile_height + line)
        tile = Image.fromarray(frames[index]).resize((tile_width, tile_height), Image.Resampling.BICUBIC)
        sheet.paste(tile, (left, top))
        draw.text((left, top + tile_height + 2), f"{explanation.seconds[index]:.2f} s", (0, 0, 0), font(LETTERS))
    return sheet
