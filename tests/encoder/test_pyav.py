from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from videogn.dataset.motion import CLASSES, draw_video
from videogn.encoder.pyav import even, write_video
from videogn.types import InputError


def pictures(num_frames: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Smooth pictures that move: compressible, and no two alike."""
    y, x = np.mgrid[:height, :width]
    planes = [[127.5 + 100 * np.sin((x + 3 * index) / 9 + c) * np.cos(y / 7) for c in range(3)] for index in range(num_frames)]
    return [np.stack(channels, axis=-1).round().astype(np.uint8) for channels in planes]


def read(path: Path) -> tuple[np.ndarray, float, list[av.VideoFrame]]:
    """The pictures, the frame rate and the frames."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), float(stream.average_rate or 0), frames


def test_lossless(tmp_path):
    frames = [np.random.default_rng(index).integers(0, 256, (33, 47, 3), dtype=np.uint8) for index in range(20)]
    write_video(tmp_path / "v.mp4", frames, 30, codec="libx264rgb", pixel_format="rgb24", crf=0)
    assert np.array_equal(read(tmp_path / "v.mp4")[0], np.stack(frames))


def test_close_to_the_frames(tmp_path):
    frames = pictures(40)
    write_video(tmp_path / "v.mp4", iter(frames), 25)
    got, _, _ = read(tmp_path / "v.mp4")
    assert got.shape == (40, 48, 64, 3)
    # crf 18 on smooth pictures; a neighbouring frame is below 25 dB, half the colours are lost to 4:2:0.
    errors = [np.mean((one.astype(float) - other) ** 2) for one, other in zip(got, frames, strict=True)]
    assert 10 * np.log10(255**2 / max(errors)) > 30


@pytest.mark.parametrize("fps", [30, 12.5, Fraction(30000, 1001), 29.97002997])
def test_times(fps, tmp_path):
    write_video(tmp_path / "v.mp4", pictures(10), fps)
    _, rate, frames = read(tmp_path / "v.mp4")
    assert rate == pytest.approx(float(fps), rel=1e-6)
    assert [frame.time for frame in frames] == pytest.approx([index / float(fps) for index in range(10)], abs=1e-4)


@pytest.mark.parametrize(("max_b_frames", "gop"), [(0, 16), (2, 16), (0, 5)])
def test_keyframes_and_b_frames(max_b_frames, gop, tmp_path):
    write_video(tmp_path / "v.mp4", pictures(40), 30, gop=gop, max_b_frames=max_b_frames)
    _, _, frames = read(tmp_path / "v.mp4")
    assert [index for index, frame in enumerate(frames) if frame.key_frame] == list(range(0, 40, gop))
    assert any(frame.pict_type == av.video.frame.PictureType.B for frame in frames) == (max_b_frames > 0)


def test_crf_and_preset_reach_the_encoder(tmp_path):
    sizes = []
    for number, options in enumerate([{}, {"crf": 35}, {"preset": "ultrafast"}]):
        write_video(tmp_path / f"{number}.mp4", pictures(20), 30, **options)
        sizes.append((tmp_path / f"{number}.mp4").stat().st_size)
    assert sizes[1] < 0.8 * sizes[0]
    assert sizes[2] != sizes[0]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_same_frames_same_bytes(suffix, tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}{suffix}", pictures(20, 240, 320), 30)  # x264 shares small ones among no threads
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert b" threads=1 " in (tmp_path / f"a{suffix}").read_bytes()  # x264 writes its options into the stream
    with av.open(str(tmp_path / f"a{suffix}")) as container:
        assert "creation_time" not in container.metadata
        versions = {key: value for key, value in container.metadata.items() if key.lower() == "encoder"}
        assert set(versions.values()) <= {"Lavf"}  # Matroska wants a name there


def test_nothing_half_written(tmp_path):
    def breaks_off():
        yield from pictures(20)
        assert not (tmp_path / "new.mp4").exists()
        raise RuntimeError("the camera fell")

    (tmp_path / "old.mp4").write_bytes(b"whole")
    for name in ("old.mp4", "new.mp4"):
        with pytest.raises(RuntimeError, match="the camera fell"):
            write_video(tmp_path / name, breaks_off(), 30)
    assert (tmp_path / "old.mp4").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["old.mp4"]
    write_video(tmp_path / "old.mp4", pictures(3), 30)
    assert len(read(tmp_path / "old.mp4")[0]) == 3


GOOD = np.zeros((48, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "frames", "options", "message"),
    [
        ("v.mp4", [], {}, "no frames to write"),
        ("v.mp4", [GOOD[:47]], {}, "yuv420p shares colour among 2 x 2 pixels, which do not divide the 64 x 47"),
        ("v.mp4", [GOOD[:, :63]], {}, "63 x 48.*pixel_format=yuv444p"),
        ("v.mp4", [GOOD, GOOD[:46]], {}, r"a frame is \(46, 64, 3\) but the first was \(48, 64, 3\)"),
        ("v.mp4", [GOOD], {"fps": 0}, "fps=0 must be positive"),
        ("v.xyz", [GOOD], {}, "suffix '.xyz' names no container"),
    ],
)
def test_refuses(name, frames, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        write_video(tmp_path / name, iter(frames), **{"fps": 30, **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frame", [GOOD.astype(np.float32), GOOD[..., 0], GOOD[..., [0, 1, 2, 0]]], ids=["float", "grey", "rgba"])
def test_refuses_other_than_rgb(frame, tmp_path):
    with pytest.raises(InputError, match=r"frames are uint8 \(H, W, 3\), RGB"):
        write_video(tmp_path / "v.mp4", iter([frame]), 30)


def test_odd_size_without_shared_colour(tmp_path):
    write_video(tmp_path / "v.mp4", [GOOD[:47, :63]], 30, pixel_format="yuv444p")
    assert read(tmp_path / "v.mp4")[0].shape == (1, 47, 63, 3)


def test_the_same_frames_give_the_same_bytes_every_time(tmp_path: Path) -> None:
    """x264's macroblock tree reads memory that nobody wrote; written in turn, about one in ten of these videos differed."""
    videos = {label: list(draw_video(label, np.random.default_rng([0, *label.encode()]))[0]) for label in CLASSES}

    def write(job: tuple[int, str]) -> tuple[str, bytes]:
        number, label = job
        path = tmp_path / f"{number}_{label}.mp4"
        write_video(path, iter(videos[label]), 25.0)
        return label, path.read_bytes()

    with ThreadPoolExecutor(2) as pool:
        contents = set(pool.map(write, [(number, label) for number in range(20) for label in CLASSES]))
    assert len(contents) == len(CLASSES)


def test_odd_sizes_are_made_even() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    grown = even(frame)
    assert grown.shape == (6, 8, 3)
    assert np.array_equal(grown[:5, :7], frame)
    assert np.array_equal(grown[5, :7], frame[4])
    assert np.array_equal(grown[:5, 7], frame[:, 6])
    assert even(frame[:4, :6]).shape == (4, 6, 3)
    assert even(np.stack([frame, frame])).shape == (2, *grown.shape)
    small = even(frame, smallest=16)
    assert small.shape == (16, 16, 3)
    assert np.array_equal(small[:5, :7], frame)
    assert (small[4:, 6:] == frame[4, 6]).all()
