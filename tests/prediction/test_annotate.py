"""Labels written into a video: every frame, where the timeline says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from videogn.decoder.pyav import PyAVDecoder
from videogn.prediction.annotate import annotated, overlaid, panel, write_annotated
from videogn.prediction.answer import Answer
from videogn.prediction.classifier import Classifier, FramePart
from videogn.prediction.lettering import fitted, font
from videogn.prediction.timeline import Timeline

from .conftest import colour_classifier

NAMES = [
    "a label that is far too long for any frame that it is written into, and goes on",
    "ゴルフ склейка ✂ 👩‍🚀",
    "\udce9 \x00 \n",
    "",
]


@pytest.mark.parametrize("size", [(2, 2), (16, 200), (64, 64), (240, 134), (2160, 3840)])
def test_any_name_is_drawn_at_any_size(size: tuple[int, int]) -> None:
    answers = [Answer(name, probability) for name, probability in zip(NAMES, (1.0, 0.5, 0.001, 0.0), strict=True)]
    for start in range(2):
        drawn = panel(answers[start : start + 3], *size)
        height, width = drawn.colours.shape[:2]
        assert height <= size[0]
        assert width <= size[1]
        frame = overlaid(np.full((*size, 3), 100, np.uint8), drawn)
        assert frame.shape == (*size, 3)
        assert (frame[:-height] == 100).all()
        assert (frame[:, width:] == 100).all()


@pytest.mark.parametrize("width", [0, 5, 60, 300])
def test_a_text_is_cut_to_its_room(width: int) -> None:
    for text in NAMES:
        cut = fitted(text, 14, width)
        assert font(14).getlength(cut) <= width
    assert fitted("swing", 14, 300) == "swing"
    whole = fitted(NAMES[0], 14, 300)
    assert whole.endswith("...")
    assert font(14).getlength(NAMES[0][: len(whole) - 2] + "...") > 300  # no more would fit


def test_letters_grow_with_the_frame() -> None:
    """White pixels of the letters as a share of the frame: the same in HD and 4K."""
    shares = []
    for height, width in ((720, 1280), (2160, 3840)):
        frame = overlaid(np.zeros((height, width, 3), np.uint8), panel([Answer("swing", 0.4)] * 3, height, width))
        shares.append((frame.min(2) > 200).mean())
    assert shares[0] == pytest.approx(shares[1], rel=0.1)
    assert shares[0] > 0.002
    # At 64 x 64 all three rows are there, each with letters.
    small = overlaid(np.zeros((64, 64, 3), np.uint8), panel([Answer("swing", 0.4)] * 3, 64, 64))
    rows = (small.min(2) > 120).any(1).astype(int)
    assert (np.diff(np.concatenate([[0], rows])) == 1).sum() == 3


def test_bars_are_as_long_as_the_probability() -> None:
    for probability in (0.0, 0.25, 1.0):
        drawn = panel([Answer("", probability)], 1000, 1000)
        is_blue = (drawn.colours[..., 2] > 150) & (drawn.colours[..., 0] < 60)
        width = drawn.colours.shape[1]
        assert is_blue.any(0).sum() / width == pytest.approx(probability, abs=0.06)


def test_the_labels_change_where_the_timeline_changes() -> None:
    starts, ends = np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
    timeline = Timeline.of(starts, ends, probabilities, 3.0, ("one", "two"))
    seconds = np.sort(np.append(np.random.default_rng(0).uniform(0, 3, 40), [0.0, 1.0, 2.0]))  # also on the borders
    frames = np.zeros((43, 48, 80, 3), np.uint8)
    parts = [FramePart(10.0, seconds[i : i + 9], frames[i : i + 9]) for i in range(0, 43, 9)]
    out = list(annotated(parts, timeline))
    assert len(out) == 43
    changes = [i for i in range(1, 43) if not np.array_equal(out[i], out[i - 1])]
    assert changes == [int(np.searchsorted(seconds, 1.0))]
    drawn = panel([Answer("one", 0.9), Answer("two", 0.1)], 48, 80)
    assert np.array_equal(out[0], overlaid(frames[0], drawn))


@pytest.mark.parametrize(("suffix", "fps"), [(".mp4", 24), (".mkv", 30), (".mov", 30000 / 1001)])
def test_the_video_has_the_frames_and_the_rate_of_its_source(
    suffix: str, fps: float, classifier: Classifier, write: Callable[..., str], tmp_path: Path
) -> None:
    path = write(f"source{suffix}", ("red", 40), ("blue", 37), fps=fps, size=(120, 160))
    out = tmp_path / "new folder" / f"labelled{suffix}"
    write_annotated(out, classifier.frames(path), classifier.timeline(path))
    source, written = PyAVDecoder().open(path), PyAVDecoder().open(out)
    assert (written.num_frames, written.height, written.width) == (77, 120, 160)
    assert written.fps == pytest.approx(fps, rel=1e-3)
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    one, other = source.frames(range(77)).astype(float), written.frames(range(77)).astype(float)
    height = panel([Answer("red", 0.5)] * 3, 120, 160).colours.shape[0]
    # Outside the panel it is the picture, twice compressed; below, it is darkened.
    assert np.abs(one[:, : 110 - height] - other[:, : 110 - height]).mean() < 6
    assert np.abs(one[:, -height + 2 :] - other[:, -height + 2 :]).mean() > 40
    timeline = classifier.timeline(path)
    change = timeline.segments[0].end_seconds
    labels = other[:, -height:, :80]
    steps = np.abs(np.diff(labels.mean((2, 3)), axis=0)).mean(1)
    assert timeline.segments[0].label == "red"
    assert 40 / fps - 0.5 <= change <= 40 / fps + 0.5
    assert steps.max() > 3 * np.median(steps)


def test_a_variable_rate_keeps_every_frame(write_variable: Callable[..., str], tmp_path: Path) -> None:
    path = write_variable("v.mkv", [0, 40, 80, 500, 900, 940, 2000, 2040], ("green", 8))
    classifier = colour_classifier()
    write_annotated(tmp_path / "out.mp4", classifier.frames(path), classifier.timeline(path))
    written = PyAVDecoder().open(tmp_path / "out.mp4")
    assert written.num_frames == 8
    assert written.fps == pytest.approx(8 / 2.08, rel=0.02)  # the last frame lasts the median of 40 ms
