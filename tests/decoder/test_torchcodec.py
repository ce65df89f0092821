from __future__ import annotations

import csv
import pickle
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import videogn.decoder.torchcodec
from videogn.decoder.probe import Probe, open_container, probe
from videogn.decoder.pyav import PyAVDecoder
from videogn.decoder.torchcodec import TorchCodecDecoder, why_declined
from videogn.types import Declined, InputError, Video, VideoError

from .marked_video import break_packet, cut_by_edit_list, cut_short, decode_in_order, marks, psnr, write_marked

try:
    TorchCodecDecoder()
except InputError as error:
    missing = str(error)
else:
    missing = ""
needs_torchcodec = pytest.mark.skipif(bool(missing), reason=missing)

TAKEN = {
    "every_frame_a_keyframe.mp4": {"gop": 1},
    "b_frames.mp4": {"gop": 12, "max_b_frames": 3},
    "gop_250.mov": {"gop": 250, "max_b_frames": 2},
    "short_gop_b_frames.mp4": {"gop": 2, "max_b_frames": 1},
    "open_gop.mp4": {"gop": 10, "max_b_frames": 3, "x264": "open-gop=1:scenecut=0"},
    "open_gop.mkv": {"gop": 10, "max_b_frames": 3, "x264": "open-gop=1:scenecut=0"},
    "intra_refresh.mkv": {"gop": 20, "x264": "intra-refresh=1:keyint=20"},
    "false_keyframes.mkv": {"gop": 250, "x264": "scenecut=100"},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "no_b_frames.avi": {"codec": "mpeg4"},
    "late_start.mp4": {"times": range(300, 360), "max_b_frames": 2},
    "variable_rate.mp4": {"times": [index * index for index in range(60)], "max_b_frames": 2},
    "two_streams.mp4": {"num_streams": 2},
    "422.mp4": {"pixel_format": "yuv422p"},
    "444.mp4": {"pixel_format": "yuv444p"},
}


@needs_torchcodec
@pytest.mark.parametrize("name", TAKEN)
def test_frames_are_those_of_pyav(name, tmp_path):
    path = write_marked(tmp_path / name, **TAKEN[name])
    truth, _ = decode_in_order(path)
    video, reference = TorchCodecDecoder().open(path), PyAVDecoder().open(path)
    assert isinstance(video, Video)
    for name in ("num_frames", "fps", "height", "width"):
        assert getattr(video, name) == getattr(reference, name)
    assert np.array_equal(video.timestamps, reference.timestamps)
    for order in ([0, 7, 30, 59], [59, 12, 11, 0, 48], [5, 5, 40, 5, 40], range(60), [59], []):
        frames = video.frames(order)
        assert marks(frames) == list(order)
        # 40 dB: another build of swscale may round otherwise; a neighbouring frame is 10 dB away.
        assert all(psnr(frame, truth[index]) >= 40 for frame, index in zip(frames, order, strict=True))
    video.close()
    video.close()


@needs_torchcodec
def test_edit_list(tmp_path):
    source = write_marked(tmp_path / "whole.mp4", gop=30, max_b_frames=2)
    video = TorchCodecDecoder().open(cut_by_edit_list(source, tmp_path / "cut.mp4", first=10))
    assert video.num_frames == 50
    assert marks(video.frames([0, 1, 49, 20])) == [10, 11, 59, 30]


@needs_torchcodec
def test_rotation(real_videos):
    for name in ("video_90", "video_180", "video_270"):
        path = real_videos / "odd" / "decord" / f"{name}.mov"
        video, reference = TorchCodecDecoder().open(path), PyAVDecoder().open(path)
        frames, expected = video.frames([0, 2]), reference.frames([0, 2])
        assert frames.shape == (2, video.height, video.width, 3) == expected.shape
        assert psnr(frames, expected) >= 40


@needs_torchcodec
def test_odd_videos(real_videos, rng):
    """Every file is read as the reference reads it, or declined."""
    with open(real_videos / "odd" / "facts.csv", newline="") as facts:
        readable = [row["path"] for row in csv.DictReader(facts) if row["status"] == "ok"]
    worst, declined = {}, []
    for name in readable:
        reference = PyAVDecoder().open(real_videos / "odd" / name)
        indices = [*rng.integers(0, reference.num_frames, 5).tolist(), reference.num_frames - 1]
        try:
            frames = TorchCodecDecoder().open(real_videos / "odd" / name).frames(indices)
        except Declined:
            declined.append(name)
        else:
            worst[name] = min(map(psnr, frames, reference.frames(indices)))
    assert {name: value for name, value in worst.items() if value < 40} == {}
    assert len(declined) == 8, declined  # two of 10 bits, six AVIs with B-frames
    assert len(worst) == len(readable) - 8


@needs_torchcodec
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("cut.mp4", lambda path: cut_short(write_marked(path, container_options={"movflags": "faststart"}), 30)),
        ("stream.ts", lambda path: write_marked(path, max_b_frames=2)),
        ("guessed_times.avi", lambda path: write_marked(path, codec="mpeg4", max_b_frames=2)),
        ("no_times.h264", lambda path: write_marked(path, max_b_frames=2)),
    ],
)
def test_declines(name, damage, tmp_path):
    with pytest.raises(Declined, match="use decoder=pyav"):
        TorchCodecDecoder().open(damage(tmp_path / name))


@needs_torchcodec
def test_declines_what_it_cannot_decode(tmp_path, capfd):
    video = TorchCodecDecoder().open(break_packet(write_marked(tmp_path / "v.mp4"), packet=30))
    with pytest.raises(Declined, match="torchcodec cannot decode it") as caught:
        video.frames(range(60))
    assert "\n" not in str(caught.value)
    assert ".cpp" not in str(caught.value)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_marked(tmp_path_factory.mktemp("video") / "v.mp4", max_b_frames=2)


@pytest.fixture
def good(path) -> Probe:
    with open_container(path) as container:
        return probe(path, container)


def changed_packet(found: Probe, place: int, **changes) -> Probe:
    packets = list(found.packets)
    packets[place] = replace(packets[place], **changes)
    return replace(found, packets=packets)


RULE = {
    "pixels yuv420p10le": lambda good: replace(good, pixel_format="yuv420p10le"),
    "container mpegts": lambda good: replace(good, container="mpegts"),
    "container mpeg": lambda good: replace(good, container="mpeg"),
    "an AVI with B-frames": lambda good: replace(good, container="avi"),
    "without a time": lambda good: changed_packet(good, 5, pts=None),
    "a time of their own": lambda good: changed_packet(good, 5, pts=good.packets[6].pts),
    "a corrupt packet": lambda good: changed_packet(good, 59, is_corrupt=True),
    "header promises 61": lambda good: replace(good, header_frames=61),
    "header promises 59": lambda good: replace(good, header_frames=59),
}


@pytest.mark.parametrize("reason", RULE)
def test_rule(reason, good):
    assert why_declined(good) is None
    assert why_declined(replace(good, header_frames=0)) is None
    assert reason in (why_declined(RULE[reason](good)) or "taken")


class Reader:
    """torchcodec's interface as far as it is used, with faults."""

    fault = ""

    def __init__(self, path, **options):
        self.video = PyAVDecoder().open(path)
        if self.fault == "open":
            raise ValueError("place, /a/b.cpp:7, no such stream\nstack")

    def __len__(self):
        return self.video.num_frames + (self.fault == "count")

    def get_frames_at(self, indices):
        frames, times = self.video.frames(indices), self.video.timestamps[indices]
        if self.fault == "neighbour":
            times = times + np.where(np.array(indices) == 7, 1 / 30, 0)
        if self.fault == "size":
            frames = frames.swapaxes(1, 2).copy()
        return SimpleNamespace(data=torch.from_numpy(frames), pts_seconds=torch.from_numpy(times))


FAULTS = {
    "open": r"does not open it \(no such stream\)",
    "count": "counts 61 frames of 60",
    "neighbour": "gives another frame in place of 7",
    "size": "gives 64x96 for 96x64",
}


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_declines_what_comes_out_wrong(fault, path, monkeypatch):
    monkeypatch.setattr(Reader, "fault", fault)
    monkeypatch.setattr(videogn.decoder.torchcodec, "_import_torchcodec", lambda: SimpleNamespace(VideoDecoder=Reader))
    if not fault:
        assert marks(TorchCodecDecoder().open(path).frames([9, 7, 9])) == [9, 7, 9]
        return
    with pytest.raises(Declined, match=FAULTS[fault]):
        TorchCodecDecoder().open(path).frames([9, 7])


@needs_torchcodec
def test_no_video(tmp_path):
    with pytest.raises(VideoError, match="no such file"):
        TorchCodecDecoder().open(tmp_path / "missing.mp4")


@needs_torchcodec
@pytest.mark.parametrize("index", [-1, 60])
def test_index_out_of_range(index, path):
    with pytest.raises(IndexError, match=f"frame {index} of a video of 60"):
        TorchCodecDecoder().open(path).frames([index])


def test_without_torchcodec(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(InputError, match=r"pip install 'videogn\[torchcodec\]'.*decoder=pyav"):
        TorchCodecDecoder()


def test_the_module_starts_without_torch():
    code = "import sys, videogn.decoder.torchcodec; print({'torch', 'torchcodec'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@needs_torchcodec
def test_pickles(path):
    decoder = pickle.loads(pickle.dumps(TorchCodecDecoder()))
    assert (decoder.name, marks(decoder.open(path).frames([8]))) == ("torchcodec", [8])
