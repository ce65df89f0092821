"""Pictures and clips of a page, decoded again."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from videogn.report.media import Example, encode


def example(shape: tuple[int, int, int] = (8, 48, 64), fps: float = 15.0, seed: int = 0, noisy: bool = False) -> Example:
    """A gradient that brightens from frame to frame, or noise, which cannot be compressed; its heat is in the right half."""
    length, height, width = shape
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, length)[:, None, None, None] * np.ones((1, height, width, 3))
    clip = rng.integers(0, 256, (*shape, 3)) if noisy else ramp
    heat = np.zeros(shape, np.float32)
    heat[:, :, width // 2 :] = 1
    return Example("c/a.mp4", "a", "b", 0.75, 0.125, clip.astype(np.uint8), fps, heat, None)


def content(uri: str | None, kind: str) -> bytes:
    assert uri is not None
    head, _, text = uri.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(text)


def picture(uri: str | None) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content(uri, "image/webp"))).convert("RGB"))


def decoded(uri: str | None) -> tuple[np.ndarray, float, str]:
    with av.open(io.BytesIO(content(uri, "video/mp4"))) as container:
        stream = container.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        return frames, float(stream.average_rate or 0), f"{stream.codec_context.name} {stream.pix_fmt}"


def test_a_clip_comes_back() -> None:
    (media,) = encode([example()], 10**6)
    frames, fps, codec = decoded(media.clip)
    assert codec == "h264 yuv420p"
    assert fps == pytest.approx(15)
    assert frames.shape == (8, 48, 64, 3)
    # Lossy: the mean of a flat frame stays within four of 255 levels.
    assert np.abs(frames.mean((1, 2, 3)) - np.linspace(0, 255, 8)).max() < 4
    assert media.size == (64, 48)
    assert picture(media.poster).shape == (48, 64, 3)
    assert not media.is_reduced


@pytest.mark.parametrize(
    ("shape", "size"), [((3, 33, 47), (48, 34)), ((2, 300, 450), (224, 150)), ((1, 1, 1), (16, 16)), ((2, 1000, 10), (16, 224))]
)
def test_sizes_are_even_and_bounded(shape: tuple[int, int, int], size: tuple[int, int]) -> None:
    (media,) = encode([example(shape)], 10**6)
    frames, _, _ = decoded(media.clip)
    assert (frames.shape[2], frames.shape[1]) == media.size == size
    assert len(frames) == shape[0]


def test_a_long_clip_keeps_its_duration() -> None:
    (media,) = encode([example((200, 16, 16), fps=50)], 10**6)
    frames, fps, _ = decoded(media.clip)
    assert len(frames) == 64
    assert len(frames) / fps == pytest.approx(200 / 50, rel=0.02)


@pytest.mark.parametrize("fps", [0.0, float("nan"), float("inf"), -3.0])
def test_a_rate_that_is_none_is_no_error(fps: float) -> None:
    (media,) = encode([example(fps=fps)], 10**6)
    assert decoded(media.clip)[1] == 8


@pytest.mark.parametrize(("length", "count"), [(3, 3), (8, 8), (32, 8)])
def test_a_strip_is_warm_where_the_heat_is(length: int, count: int) -> None:
    (media,) = encode([example((length, 40, 40))], 10**6)
    strip = picture(media.strip)
    assert strip.shape == (40, 40 * count + 2 * (count - 1), 3)
    assert media.strip_size == (strip.shape[1], strip.shape[0])
    for index in range(count):
        frame = strip[:, 42 * index : 42 * index + 40].astype(int)
        cold, hot = frame[:, 4:16], frame[:, 24:36]
        assert np.abs(cold[..., 0] - cold[..., 2]).mean() < 12  # grey as it was
        assert (hot[..., 0] - hot[..., 2]).mean() > 40  # red over blue


def test_a_strip_shows_the_frames_as_they_are_where_it_is_cold() -> None:
    clip = np.full((4, 40, 40, 3), 60, np.uint8)
    clip[:, :20, :20], clip[:, 20:, :20] = (200, 60, 60), (60, 60, 200)
    heat = np.zeros((4, 40, 40), np.float32)
    (media,) = encode([Example("a", "a", "b", 0.5, 0.5, clip, 5, heat, None)], 10**6)
    frame = picture(media.strip)[:, :40].astype(int)
    for corner, colour in (((4, 4), (200, 60, 60)), ((28, 4), (60, 60, 200)), ((4, 28), (60, 60, 60))):
        y, x = corner
        assert np.abs(frame[y : y + 8, x : x + 8].mean((0, 1)) - colour).max() < 12


def test_without_a_clip_or_heat_there_is_none() -> None:
    bare = Example("a", "a", "b", 0.5, 0.5, None, 0, None, "moved")
    cold = Example("a", "a", "b", 0.5, 0.5, np.zeros((2, 16, 16, 3), np.uint8), 5, None, None)
    first, second = encode([bare, cold], 10**6)
    assert first.poster is first.clip is first.strip is second.strip is None
    assert second.clip


@pytest.mark.parametrize("budget", [0, 30_000, 120_000, 600_000])
def test_a_budget_is_kept_and_shared(budget: int) -> None:
    examples = [example((8, 160, 160), seed=seed, noisy=True) for seed in range(5)]
    found = encode(examples, budget)
    assert sum(media.num_chars for media in found) <= budget
    assert found[0].is_reduced  # its best is larger than a fifth of the largest budget
    if budget >= 120_000:
        assert all(media.poster for media in found)
    if budget >= 600_000:
        assert all(media.clip for media in found)


def test_heat_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"c/x\.mp4: heat of \(2, 8, 8\) for a clip of \(2, 16, 16\)"):
        Example("c/x.mp4", "a", "b", 0, 0, np.zeros((2, 16, 16, 3), np.uint8), 1, np.zeros((2, 8, 8), np.float32), None)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    encode([example()], 10**6)
    assert list(tmp_path.iterdir()) == []
