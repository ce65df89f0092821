"""The files of an explanation, read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videogn.decoder.pyav import PyAVDecoder
from videogn.evaluation.grad_cam import overlaid
from videogn.prediction.explain import COLUMNS, MARGIN, Explanation, contact_sheet, write_explanation


def explanation(length: int, height: int, width: int, label: str = "swing") -> Explanation:
    rng = np.random.default_rng(0)
    clip = np.repeat(np.repeat(rng.integers(0, 256, (length, -(-height // 8), -(-width // 8), 3)), 8, 1), 8, 2)[
        :, :height, :width
    ]
    heat = np.linspace(0, 1, length * height * width).reshape(length, height, width).astype(np.float32)
    return Explanation(clip.astype(np.uint8), heat, label, 0.873, 3 + 0.25 * np.arange(length))


@pytest.mark.parametrize(("length", "height", "width"), [(1, 16, 16), (8, 65, 63), (40, 112, 200)])
def test_the_video_is_the_clip_beside_its_overlay(tmp_path: Path, length: int, height: int, width: int) -> None:
    found = explanation(length, height, width)
    write_explanation(tmp_path / "folder" / "a.b \udce9", found, "a.b \udce9.mp4")
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == ["a.b \udce9.mp4", "a.b \udce9.png"]
    (tmp_path / "folder" / "a.b \udce9.mp4").rename(tmp_path / "x.mp4")
    video = PyAVDecoder().open(tmp_path / "x.mp4")
    assert (video.num_frames, video.height, video.width) == (length, height + height % 2, 2 * width)
    assert video.fps == pytest.approx(4 if length > 1 else 1)
    frames = video.frames(range(length))
    left, right = frames[:, :height, :width], frames[:, :height, width:]
    # H.264 at crf 18 with a quarter of the colours.
    assert np.abs(left.astype(float) - found.clip).mean() < 12
    assert np.abs(right.astype(float) - overlaid(found.clip, found.heat)).mean() < 12
    with Image.open(tmp_path / "folder" / "a.b \udce9.png") as sheet:
        assert sheet.size == contact_sheet(found, "").size


@pytest.mark.parametrize(("length", "rows"), [(1, 1), (3, 1), (8, 2), (16, 4), (64, 4)])
def test_the_sheet_has_at_most_sixteen_frames(length: int, rows: int) -> None:
    found = explanation(length, 64, 64)
    sheet = np.asarray(contact_sheet(found, "title"))
    columns = min(length, COLUMNS)
    tile, line = 192, 21  # three times 64: at least 160; one and a half letters
    assert sheet.shape == (2 * line + 2 * MARGIN + rows * (tile + line), columns * (tile + MARGIN) + MARGIN, 3)
    chosen = [round(i * (length - 1) / max(1, min(length, 16) - 1)) for i in range(min(length, 16))]
    frames = overlaid(found.clip, found.heat)
    for place, index in enumerate(chosen):
        top, left = 2 * line + MARGIN + place // columns * (tile + line), MARGIN + place % columns * (tile + MARGIN)
        shown = sheet[top : top + tile, left : left + tile].reshape(64, 3, 64, 3, 3).mean((1, 3))
        assert np.abs(shown - frames[index]).mean() < 8  # smooth where blocks of 8 pixels meet
        below = sheet[top + tile : top + tile + line, left : left + tile]
        assert (below < 100).any()  # its time


@pytest.mark.parametrize("label", ["ゴルフ", "\udce9", "a very long label " * 20, ""])
def test_any_label_is_drawn(label: str) -> None:
    contact_sheet(explanation(2, 16, 16, label), label)
