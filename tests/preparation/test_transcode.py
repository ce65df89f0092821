"""Videos written anew: the right frames at the right times, small, fast to read, and whole."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from videogn.decoder.probe import open_container, probe
from videogn.decoder.pyav import PyAVDecoder
from videogn.encoder.pyav import write_video
from videogn.preparation import transcode as module
from videogn.preparation.transcode import Settings, kept, transcode, written_size
from videogn.preparation.verify import verify
from videogn.sampler.rate import frames_at
from videogn.types import InputError, ShortRead, VideoError

HEIGHT, WIDTH = 64, 96


def picture(index: int) -> np.ndarray:
    """Eight bright or dark blocks of 32 x 24 pixels: the index in binary."""
    bits = np.array([[index >> (4 * row + column) & 1 for column in range(4)] for row in range(2)], np.uint8)
    return np.repeat((16 + 200 * bits.repeat(32, 0).repeat(24, 1))[..., None], 3, axis=-1)


def indices(path: Path) -> list[int]:
    """What the pictures of a file say, whatever their size."""
    video = PyAVDecoder().open(path)
    frames = video.frames(range(video.num_frames))
    video.close()
    h, w = frames.shape[1] // 2, frames.shape[2] // 4
    inner = [
        [slice(r * h + h // 4, r * h + 3 * h // 4), slice(c * w + w // 4, c * w + 3 * w // 4)] for r in range(2) for c in range(4)
    ]
    return [sum(int(frame[rows, columns].mean() > 116) << bit for bit, (rows, columns) in enumerate(inner)) for frame in frames]


def write_at(path: Path, milliseconds: list[int]) -> Path:
    """A video of variable frame rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time in enumerate(milliseconds):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def uneven(count: int) -> list[int]:
    """20 and 60 milliseconds in turn, from 500 on."""
    return [500 + 40 * index + 20 * (index % 2) for index in range(count)]


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((720, 1280), 256, (256, 456)),  # 455.1
        ((1280, 720), 256, (456, 256)),
        ((240, 426), 256, (240, 426)),  # not enlarged
        ((33, 47), 256, (32, 46)),
        ((1, 9), 256, (2, 8)),
        ((256, 256), 256, (256, 256)),
        ((257, 511), 256, (256, 510)),  # 509.01 is between 508 and 510
        ((1081, 1921), 112, (112, 200)),  # 199.03
    ],
)
def test_size(size: tuple[int, int], short_side: int, expected: tuple[int, int]) -> None:
    assert written_size(*size, short_side) == expected


def test_the_frames_to_keep() -> None:
    seconds = np.arange(6) / 10
    assert [list(each) for each in kept(seconds, None, 1)] == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
    assert [list(each) for each in kept(seconds, None, 2)] == [[0, 2, 4], [0, 2, 4]]
    assert [list(each) for each in kept(seconds, 5, 1)] == [[0, 2, 4], [0, 1, 2]]
    assert [list(each) for each in kept(seconds, 5, 2)] == [[0, 4], [0, 2]]
    assert [list(each) for each in kept(seconds, 20, 1)] == [[0, 1, 2, 3, 4, 5], [0, 2, 4, 6, 8, 10]]  # none is repeated
    assert [list(each) for each in kept(seconds[:1], 20, 3)] == [[0], [0]]


def test_layout(tmp_path: Path) -> None:
    """H.264 yuv420p, a keyframe at least every 16 frames, no B-frames, no CABAC (tune fastdecode), no sound."""
    write_video(tmp_path / "v.mkv", (picture(index) for index in range(40)), 30, max_b_frames=2)
    transcode(tmp_path / "v.mkv", tmp_path / "out.mp4", Settings())
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio
        (stream,) = container.streams.video
        frames = list(container.decode(stream))
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
    keyframes = [index for index, frame in enumerate(frames) if frame.key_frame]
    assert keyframes[0] == 0
    assert max(np.diff([*keyframes, len(frames)])) == 16  # a cut may bring one earlier
    assert {frame.pict_type for frame in frames} == {av.video.frame.PictureType.I, av.video.frame.PictureType.P}
    # x264 writes its options into the stream. Its macroblock tree gives other bytes now and then.
    assert all(option in (tmp_path / "out.mp4").read_bytes() for option in (b"cabac=0", b"deblock=0", b"mbtree=0"))
    with open_container(tmp_path / "out.mp4") as container:
        assert all(packet.pts == packet.dts for packet in probe(tmp_path / "out.mp4", container).packets)


@pytest.mark.parametrize("fps", [25.0, Fraction(30000, 1001), 12.5])
def test_every_frame_at_its_time(fps: float | Fraction, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", (picture(index) for index in range(40)), fps, max_b_frames=2)
    source, written = transcode(tmp_path / "v.mp4", tmp_path / "out.mp4", Settings(gop=7))
    assert source == verify(tmp_path / "v.mp4")
    assert written == verify(tmp_path / "out.mp4")
    assert (written.num_frames, written.height, written.width) == (40, HEIGHT, WIDTH)
    assert written.fps == pytest.approx(float(fps), rel=1e-4)
    assert indices(tmp_path / "out.mp4") == list(range(40))
    assert PyAVDecoder().open(tmp_path / "out.mp4").timestamps == pytest.approx(np.arange(40) / float(fps), abs=1e-4)


def test_variable_frame_rate_keeps_its_times_from_zero(tmp_path: Path) -> None:
    write_at(tmp_path / "v.mkv", uneven(50))
    transcode(tmp_path / "v.mkv", tmp_path / "out.mp4", Settings())
    assert indices(tmp_path / "out.mp4") == list(range(50))
    times = (np.array(uneven(50)) - 500) / 1000
    assert PyAVDecoder().open(tmp_path / "out.mp4").timestamps == pytest.approx(times, abs=1e-4)


def test_stride(tmp_path: Path) -> None:
    write_at(tmp_path / "v.mkv", uneven(50))
    transcode(tmp_path / "v.mkv", tmp_path / "out.mp4", Settings(frame_stride=3))
    assert indices(tmp_path / "out.mp4") == list(range(0, 50, 3))
    times = (np.array(uneven(50)[::3]) - 500) / 1000
    assert PyAVDecoder().open(tmp_path / "out.mp4").timestamps == pytest.approx(times, abs=1e-4)


@pytest.mark.parametrize("target_fps", [5, 12.5, 15, 25])
def test_a_sampler_of_the_target_rate_sees_the_same_frames(target_fps: float, tmp_path: Path) -> None:
    """Also where the rate varies, and where it is below the target (of 25 a second some intervals are 60 ms)."""
    write_at(tmp_path / "v.mkv", uneven(50))
    transcode(tmp_path / "v.mkv", tmp_path / "out.mp4", Settings(target_fps=target_fps))
    raw, prepared = (PyAVDecoder().open(tmp_path / name) for name in ("v.mkv", "out.mp4"))
    seen = frames_at(raw.timestamps, target_fps)
    of = np.array(indices(tmp_path / "out.mp4"))
    assert list(of) == sorted(set(seen.tolist()))
    # The last frame's time on screen is a guess from the intervals: the number of its showings may differ by one.
    shown = of[frames_at(prepared.timestamps, target_fps)]
    assert list(shown[: len(seen) - 1]) == list(seen[: len(shown)][: len(seen) - 1])
    assert abs(len(shown) - len(seen)) <= 1
    assert prepared.timestamps * target_fps == pytest.approx(np.round(prepared.timestamps * target_fps), abs=0.01)


@pytest.mark.parametrize("turns", [90, 180, 270])
def test_upright(turns: int, real_videos: Path, tmp_path: Path) -> None:
    path = real_videos / "odd" / "decord" / f"video_{turns}.mov"
    _, written = transcode(path, tmp_path / "out.mp4", Settings(crf=10))
    raw, prepared = PyAVDecoder().open(path), PyAVDecoder().open(tmp_path / "out.mp4")
    assert (written.height < written.width) == (raw.height < raw.width)
    shrunk = raw.frames([1])[0].astype(float)
    got = prepared.frames([1])[0].astype(float)
    rows, columns = (np.arange(n) * m // n for n, m in zip(got.shape, shrunk.shape[:2], strict=False))
    errors = {quarter: np.abs(np.rot90(shrunk[rows][:, columns], 2 * quarter) - got).mean() for quarter in (0, 1)}
    assert errors[0] < 10 < errors[1]


@pytest.mark.parametrize(
    "name", ["torchcodec/bt709_full_range.mp4", "torchcodec/h264_10bits.mp4", "mmaction2/spatio-temporal-det.gif"]
)
def test_colours(name: str, real_videos: Path, tmp_path: Path) -> None:
    """A range taken for the other shifts grey by up to 16 of 255; BT.601 for BT.709 shifts green by more than 10."""
    path = real_videos / "odd" / name
    transcode(path, tmp_path / "out.mp4", Settings())
    means = [PyAVDecoder().open(file).frames([0, 5]).mean((0, 1, 2)) for file in (path, tmp_path / "out.mp4")]
    assert means[1] == pytest.approx(means[0], abs=3)


@pytest.mark.parametrize(
    "name",
    ["vision/RATRACE_wave_f_nm_np1_fr_goo_37.avi", "decord/corrupted.mp4", "mmaction2/test.avi", "torchcodec/nasa_13013.mp4"],
)
def test_odd_files_keep_what_decodes(name: str, real_videos: Path, tmp_path: Path) -> None:
    """B-frames in AVI, a packet that fails, times that go back, two streams."""
    path = real_videos / "odd" / name
    source, written = transcode(path, tmp_path / "out.mp4", Settings(short_side=64))
    assert source == verify(path)
    assert (written.status, written.num_frames) == ("ok", source.num_frames)
    raw, prepared = PyAVDecoder().open(path), PyAVDecoder().open(tmp_path / "out.mp4")
    with suppress(ShortRead):  # which makes it count
        raw.frames(range(raw.num_frames))
    assert prepared.timestamps == pytest.approx(raw.timestamps - raw.timestamps[0], abs=1e-3)


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_video(tmp_path / "v.mp4", rng.integers(0, 256, (20, 300, 400, 3), np.uint8), 25)
    for name in ("a.mp4", "b.mp4"):
        transcode(tmp_path / "v.mp4", tmp_path / name, Settings())
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_file_written_wrong_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "v.mp4", (picture(index) for index in range(30)), 25)
    genuine = module.write_frames

    def forgetful(path: Path, frames, *arguments, **options) -> int:
        taken = list(frames)
        genuine(path, iter(taken[:-1]), *arguments, **options)
        return len(taken)

    monkeypatch.setattr(module, "write_frames", forgetful)
    with pytest.raises(VideoError, match="was written wrong: 29 frames of 30"):
        transcode(tmp_path / "v.mp4", tmp_path / "out.mp4", Settings())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"short_side": 255}, "short_side=255: give an even number"),
        ({"short_side": True}, "short_side=True: give an even number"),
        ({"crf": 52}, "crf=52: give a whole number from 0"),
        ({"crf": 1.5}, "crf=1.5: give a whole number from 0"),
        ({"gop": 0}, "gop=0: give a whole number of frames"),
        ({"frame_stride": "two"}, "frame_stride=two: give a whole number of frames"),
        ({"preset": "turbo"}, "preset=turbo: use one of ultrafast"),
        ({"target_fps": 0}, "target_fps=0: give frames per second"),
        ({"target_fps": float("nan")}, "target_fps=nan: give frames per second"),
    ],
)
def test_settings(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**values)
