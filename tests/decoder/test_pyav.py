from __future__ import annotations

import multiprocessing
import pickle
import wave
from fractions import Fraction
from pathlib import Path
from unittest.mock import Mock

import av
import numpy as np
import pytest
from av.container import InputContainer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import videogn.decoder.pyav
from videogn.decoder.probe import decoded, packets
from videogn.decoder.pyav import PyAVDecoder, PyAVVideo
from videogn.encoder.pyav import write_video
from videogn.types import ShortRead, Video, VideoError

from .marked_video import (
    HEIGHT,
    WIDTH,
    break_packet,
    cut_by_edit_list,
    cut_short,
    decode_in_order,
    marks,
    write_marked,
)

ORDERS = {
    "sorted": [0, 7, 30, 59],
    "backwards": [59, 58, 31, 12, 11, 0],
    "repeated": [5, 5, 40, 5, 40],
    "dense": list(range(9, 29)),
    "last": [59],
}


def open_video(path: Path) -> PyAVVideo:
    return PyAVDecoder().open(path)


@pytest.fixture
def count_decoded(monkeypatch):
    """Counts the frames that come out of the decoder."""
    counted = []
    genuine = videogn.decoder.pyav.decoded

    def counting(stream, packets):
        for frame in genuine(stream, packets):
            counted.append(frame.pts)
            yield frame

    monkeypatch.setattr(videogn.decoder.pyav, "decoded", counting)
    return counted


VIDEOS = {
    "every_frame_a_keyframe.mp4": {"gop": 1},
    "b_frames.mp4": {"gop": 12, "max_b_frames": 3},
    "gop_250.mp4": {"gop": 250, "max_b_frames": 2},
    "short_gop_b_frames.mp4": {"gop": 2, "max_b_frames": 1},
    "open_gop.mp4": {"gop": 10, "max_b_frames": 3, "x264": "open-gop=1:scenecut=0"},
    "open_gop.mkv": {"gop": 10, "max_b_frames": 3, "x264": "open-gop=1:scenecut=0"},
    "intra_refresh.mkv": {"gop": 20, "x264": "intra-refresh=1:keyint=20"},  # no true keyframe but the first
    "false_keyframes.mkv": {"gop": 250, "x264": "scenecut=100"},  # Matroska flags every intra frame
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "stream.ts": {"max_b_frames": 2},
    "no_times.h264": {"max_b_frames": 2},
    "guessed_times.avi": {"codec": "mpeg4", "max_b_frames": 2},
    "no_b_frames.avi": {"codec": "mpeg4"},
    "late_start.mp4": {"times": range(300, 360), "max_b_frames": 2},
}


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_are_those_of_a_decode_in_order(name, tmp_path):
    path = write_marked(tmp_path / name, **VIDEOS[name])
    truth, num_frames = decode_in_order(path)
    video = open_video(path)
    assert isinstance(video, Video)
    assert video.num_frames == len(video.timestamps) == num_frames == 60
    assert (np.diff(video.timestamps) > 0).all()
    for order in ORDERS.values():
        frames = video.frames(order)
        assert marks(frames) == order
        assert all(np.array_equal(frame, truth[index]) for frame, index in zip(frames, order, strict=True))
    video.close()


@pytest.fixture(scope="module")
def b_frames(tmp_path_factory) -> Path:
    return write_marked(tmp_path_factory.mktemp("video") / "b_frames.mp4", gop=16, max_b_frames=2)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reads=st.lists(st.lists(st.integers(0, 59), max_size=6), min_size=1, max_size=4))
def test_any_reads_in_any_order(b_frames, reads):
    video = open_video(b_frames)
    for indices in reads:
        assert marks(video.frames(indices)) == indices
    video.close()


def test_times_of_a_variable_frame_rate(tmp_path, rng):
    times = np.cumsum(rng.integers(1, 9, 60))
    times -= times[0]  # mp4 keeps a late start in whole milliseconds only
    path = write_marked(tmp_path / "vfr.mp4", max_b_frames=2, times=times.tolist(), time_base=Fraction(1, 120))
    video = open_video(path)
    assert video.timestamps == pytest.approx(times / 120, abs=1 / 15360)  # the time base
    assert marks(video.frames([50, 3])) == [50, 3]


def test_each_frame_is_decoded_once(tmp_path, count_decoded):
    video = open_video(write_marked(tmp_path / "v.mp4", gop=250))
    video.frames([40, 8, 24, 8, 16])
    assert len(count_decoded) == 41
    video.frames([50])  # decodes on from where it stands
    assert len(count_decoded) == 51


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
@pytest.mark.parametrize("max_b_frames", [0, 3])
def test_seeks_to_the_keyframe_before(name, max_b_frames, tmp_path, count_decoded):
    """With frames out of order a keyframe's two times differ, and mp4 and Matroska search by different ones."""
    video = open_video(write_marked(tmp_path / name, gop=12, max_b_frames=max_b_frames))
    video.frames([50])
    assert count_decoded[0] == video._marks[48]
    assert len(count_decoded) <= 50 - 48 + 1
    count_decoded.clear()
    video.frames([38])
    assert count_decoded[0] == video._marks[36]
    assert len(count_decoded) <= 38 - 36 + 1


def test_frames_that_no_other_needs_are_not_decoded_on_the_way(tmp_path, count_decoded):
    """Three of four are B-frames that none refers to, and the video is the same with and without them."""
    path = write_marked(tmp_path / "v.mp4", gop=250, max_b_frames=3, x264="scenecut=0:b-adapt=0:b-pyramid=none")
    video = open_video(path)
    assert marks(video.frames([41, 48])) == [41, 48]
    assert len(count_decoded) <= 48 / 4 + 4
    assert marks(video.frames([49, 50, 51])) == [49, 50, 51]
    assert len(count_decoded) <= 48 / 4 + 8


class Late:
    """A container whose demuxer lands behind what it is asked for."""

    __class__ = InputContainer

    def __init__(self, container, ticks):
        self._container, self._ticks = container, ticks

    def seek(self, target, **options):
        self._container.seek(target + self._ticks, **options)

    def __getattr__(self, name):
        return getattr(self._container, name)


@pytest.mark.parametrize(
    ("frames_late", "first_decoded"),
    [
        (12, 12),  # by the keyframe's pts it would land at 24; by its dts, which is less, right
        (24, 0),  # from the start of the file, without a recount
    ],
)
def test_a_demuxer_that_lands_late(frames_late, first_decoded, tmp_path, count_decoded):
    video = open_video(write_marked(tmp_path / "v.mp4", gop=12, max_b_frames=2))
    tick = video._marks[1] - video._marks[0]
    video._container = Late(video._container, frames_late * tick)
    assert marks(video.frames([14])) == [14]
    assert count_decoded[0] == video._marks[first_decoded]
    assert len(count_decoded) <= 15


def test_one_thread(b_frames):
    video = open_video(b_frames)
    assert [stream.codec_context.thread_count for stream in video._container.streams.video] == [1]


def test_false_keyframes_are_sought_once(tmp_path, count_decoded):
    video = open_video(write_marked(tmp_path / "v.mkv", gop=250, x264="scenecut=100"))
    video.frames(range(0, 60, 6))
    count_decoded.clear()
    video.frames(range(0, 60, 6))
    assert len(count_decoded) <= 60


def test_lossless_colours(tmp_path):
    """Against the definition of BT.601 in limited range, to the rounding of swscale's fixed-point tables."""
    path = tmp_path / "grey.mp4"
    greys = np.arange(16, 236, 20)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for index, luma in enumerate(greys):
            planes = np.full((48, 32), 128, np.uint8)
            planes[:32] = luma
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    frames = open_video(path).frames(range(len(greys)))
    expected = (greys - 16) * 255 / 219
    assert np.abs(frames - expected[:, None, None, None]).max() <= 1


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_upright(degrees, tmp_path):
    path, turned = write_marked(tmp_path / "v.mp4"), tmp_path / "turned.mp4"
    upright = open_video(path).frames([33])[0]
    with av.open(str(path)) as read, av.open(str(turned), "w") as written:
        copy = written.add_stream_from_template(read.streams.video[0])
        copy.set_display_rotation(degrees)
        for packet in read.demux(video=0):
            if packet.size:
                packet.stream = copy
                written.mux(packet)
    video = open_video(turned)
    frame = video.frames([33])[0]
    assert frame.shape[:2] == (video.height, video.width) == ((HEIGHT, WIDTH) if degrees == 180 else (WIDTH, HEIGHT))
    quarter_turns = decode_in_order(turned, {33})[0][33]
    assert np.array_equal(frame, quarter_turns)
    assert any(np.array_equal(frame, np.rot90(upright, turns)) for turns in (1, 2, 3))


def test_largest_stream(tmp_path):
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        for size in (32, 64, 48):
            stream = container.add_stream("libx264", rate=30)
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
        for stream in container.streams.video:
            frame = av.VideoFrame.from_ndarray(np.zeros((stream.height, stream.width, 3), np.uint8), format="rgb24")
            frame.pts = 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    assert open_video(path).frames([0]).shape == (1, 64, 64, 3)


def test_edit_list(tmp_path):
    source = write_marked(tmp_path / "whole.mp4", gop=30, max_b_frames=2)
    video = open_video(cut_by_edit_list(source, tmp_path / "cut.mp4", first=10))
    assert video.num_frames == 50
    assert marks(video.frames([0, 1, 49, 20])) == [10, 11, 59, 30]


def test_single_frame(tmp_path):
    video = open_video(write_marked(tmp_path / "v.mp4", 1))
    assert (video.num_frames, marks(video.frames([0, 0]))) == (1, [0, 0])


def test_download_cut_short(tmp_path):
    path = write_marked(tmp_path / "v.mp4", max_b_frames=2, container_options={"movflags": "faststart"})
    truth, num_frames = decode_in_order(cut_short(path, packets=30))
    video = open_video(path)
    assert video.num_frames == num_frames in (29, 30)
    frames = video.frames(range(num_frames))
    assert all(np.array_equal(frames[index], truth[index]) for index in range(num_frames))


def test_short_read_recounts(tmp_path):
    path = break_packet(write_marked(tmp_path / "v.mp4"), packet=30)
    truth, num_frames = decode_in_order(path)
    assert num_frames == 59
    video = open_video(path)
    assert video.num_frames == 60  # nothing but decoding shows the damage
    assert marks(video.frames([29, 40])) == [29, 40]
    with pytest.raises(ShortRead, match="59 frames decode of the 60 promised"):
        video.frames([29, 30])
    assert video.num_frames == len(video.timestamps) == 59
    assert video.timestamps[29:31] == pytest.approx([29 / 30, 31 / 30])  # frame 30 is gone
    frames = video.frames([58, 30, 0])
    assert all(np.array_equal(frame, truth[index]) for frame, index in zip(frames, [58, 30, 0], strict=True))


def test_broken_first_packet(tmp_path):
    video = open_video(break_packet(write_marked(tmp_path / "v.mp4"), packet=0))
    with pytest.raises(ShortRead):
        video.frames(range(60))
    assert marks(video.frames([video.num_frames - 1])) == [59]


@pytest.fixture
def no_video(tmp_path) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.mp4" for name in ("missing", "empty", "random", "folder", "sound", "broken")}
    paths["empty"].touch()
    paths["random"].write_bytes(np.random.default_rng(0).bytes(50_000))
    paths["folder"].mkdir()
    with wave.open(str(paths["sound"]), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16_000))
    write_marked(paths["broken"], 5)
    for packet in range(5):
        break_packet(paths["broken"], packet)
    return paths


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "no such file"),
        ("empty", "cannot be opened"),
        ("random", "cannot be opened"),
        ("folder", "no such file"),
        ("sound", "no video stream"),
        ("broken", "no frame decodes"),
    ],
)
def test_no_video(name, reason, no_video):
    with pytest.raises(VideoError, match=reason) as caught:
        open_video(no_video[name])
    assert caught.value.path == str(no_video[name])
    assert "\n" not in str(caught.value)


def test_no_memory_is_no_damage(b_frames, monkeypatch):
    """FFmpeg's failed allocation is an FFmpegError, as a broken packet is: it must not pass for a shorter video."""
    error = av.error.MemoryError(12, "Cannot allocate memory")
    stream, container = Mock(spec=av.VideoStream), Mock(spec=av.container.InputContainer)
    stream.decode.side_effect = container.demux.side_effect = error
    with pytest.raises(MemoryError):
        list(decoded(stream, []))
    with pytest.raises(MemoryError):
        list(packets(container, stream))
    monkeypatch.setattr(av, "open", Mock(side_effect=error))
    with pytest.raises(MemoryError):
        open_video(b_frames)


@pytest.mark.parametrize("index", [-1, 60])
def test_index_out_of_range(index, b_frames):
    with pytest.raises(IndexError, match=f"frame {index} of a video of 60"):
        open_video(b_frames).frames([0, index])


def test_no_indices(b_frames):
    assert open_video(b_frames).frames([]).shape == (0, HEIGHT, WIDTH, 3)


def test_awkward_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_marked(tmp_path / "v.mp4").rename(tmp_path / "http:a %03d [x], b=c.mp4")
    assert open_video(Path("http:a %03d [x], b=c.mp4")).num_frames == 60


def test_close_twice(b_frames):
    video = open_video(b_frames)
    video.close()
    video.close()


def test_pickles(b_frames):
    decoder = pickle.loads(pickle.dumps(PyAVDecoder()))
    assert (decoder.name, marks(decoder.open(b_frames).frames([8]))) == ("pyav", [8])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_decodes_after_its_parent_did(tmp_path):
    """PyAV 19 converts the frames of a thread with one converter, whose threads a forked process does not have."""
    write_video(tmp_path / "v.mp4", [np.full((480, 640, 3), index, dtype=np.uint8) for index in range(4)], 25)
    with av.open(str(tmp_path / "v.mp4")) as container:
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")
    before = open_video(tmp_path / "v.mp4")
    before.frames([0])

    def decode():
        after = open_video(tmp_path / "v.mp4")
        assert after.frames([0, 3]).shape == before.frames([1, 2]).shape
        after.close()

    child = multiprocessing.get_context("fork").Process(target=decode)
    child.start()
    child.join(60)
    child.kill()
    before.close()
    assert child.exitcode == 0
