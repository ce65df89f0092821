from __future__ import annotations

import csv
import logging
import pickle
import subprocess
import sys

import numpy as np
import pytest

from videogn.decoder.auto import AutoDecoder
from videogn.decoder.pyav import PyAVDecoder, PyAVVideo
from videogn.types import InputError, ShortRead, Video, VideoError

from .marked_video import break_packet, cut_short, decode_in_order, marks, psnr, write_marked


@pytest.fixture
def after_decord():
    """decord first."""
    pytest.importorskip("decord")
    return AutoDecoder("decord")


def test_pyav_reads_every_video(tmp_path):
    assert isinstance(AutoDecoder().open(write_marked(tmp_path / "v.mp4")), PyAVVideo)


def test_decord_reads_what_it_reads_right(after_decord, tmp_path):
    video = after_decord.open(write_marked(tmp_path / "v.mp4", max_b_frames=2))
    assert isinstance(video, Video)
    assert not isinstance(video, PyAVVideo)
    assert marks(video.frames([40, 3, 40])) == [40, 3, 40]
    video.close()
    video.close()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("open_gop.mp4", {"gop": 10, "max_b_frames": 3, "x264": "open-gop=1:scenecut=0"}),
        ("b.mkv", {"gop": 250, "x264": "scenecut=100"}),
        ("b.avi", {"max_b_frames": 2}),
        ("b.ts", {"max_b_frames": 2}),
    ],
)
def test_pyav_reads_what_decord_declines(name, options, after_decord, tmp_path):
    video = after_decord.open(write_marked(tmp_path / name, **options))
    assert isinstance(video, PyAVVideo)
    assert marks(video.frames([40, 3, 59, 25])) == [40, 3, 59, 25]


def test_pyav_takes_over_where_decord_fails(after_decord, tmp_path):
    video = after_decord.open(break_packet(write_marked(tmp_path / "v.mp4"), packet=30))
    with pytest.raises(ShortRead):
        video.frames(range(60))
    assert video.num_frames == len(video.timestamps) == 59
    assert marks(video.frames([58, 29, 0])) == [59, 29, 0]
    video.close()


def test_frames_beside_the_damage(after_decord, tmp_path):
    video = after_decord.open(break_packet(write_marked(tmp_path / "v.mp4", gop=12), packet=30))
    assert marks(video.frames([29, 40])) == [29, 40]  # decord decodes 31 too on its way to 40, and fails at 30
    assert video.num_frames == 60


def test_download_cut_short(after_decord, tmp_path):
    path = write_marked(tmp_path / "v.mp4", container_options={"movflags": "faststart"})
    video = after_decord.open(cut_short(path, packets=30))
    assert marks(video.frames(range(video.num_frames))) == list(range(video.num_frames))


def test_no_video(tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match="cannot be opened"):
        AutoDecoder().open(tmp_path / "empty.mp4")


@pytest.mark.parametrize(
    ("prefer", "message"),
    [("pyav", "decoder: pyav"), ("decord", "decoder: decord, pyav for files that decord declines")],
)
def test_says_once_what_it_takes(prefer, message, caplog):
    pytest.importorskip("decord")
    with caplog.at_level(logging.INFO, logger="videogn"):
        AutoDecoder(prefer)
    assert caplog.messages == [message]


def test_a_preferred_decoder_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(InputError, match="decord cannot be imported here"):
        AutoDecoder("decord")
    with pytest.raises(InputError, match=r"decoder\.prefer='cv2': give pyav, decord or torchcodec"):
        AutoDecoder("cv2")


def test_pickles(tmp_path):
    decoder = pickle.loads(pickle.dumps(AutoDecoder()))
    assert (decoder.name, marks(decoder.open(write_marked(tmp_path / "v.mp4")).frames([8]))) == ("auto", [8])


def test_starts_without_torch():
    code = (
        "import sys, videogn.decoder.auto, videogn.encoder.pyav; videogn.decoder.auto.AutoDecoder(); "
        "print({'torch', 'lightning'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def worst_psnr(video: Video, indices: list[int], truth: dict[int, np.ndarray], num_frames: int) -> float:
    """Of the frames at `indices`, in dB; zero where the video has another number of frames."""
    if video.num_frames != num_frames:
        with pytest.raises(ShortRead):  # damage that shows only in decoding
            video.frames(range(video.num_frames))
    frames = video.frames(indices)
    video.close()
    same_size = frames.shape[1:3] == (video.height, video.width)
    return min(map(psnr, frames, (truth[i] for i in indices))) if same_size and video.num_frames == num_frames else 0.0


@pytest.mark.turns
def test_odd_videos(real_videos, after_decord, rng):
    """Files from the test suites of other libraries: random access gives the frames of a decode in order."""
    with open(real_videos / "odd" / "facts.csv", newline="") as facts:
        readable = [row for row in csv.DictReader(facts) if row["status"] in ("ok", "partial")]
    assert len(readable) >= 40
    worst = {}
    for row in readable:
        path = real_videos / "odd" / row["path"]
        # facts.csv has the first stream; we take the largest.
        num_frames = 390 if path.name == "nasa_13013.mp4" else int(row["frames_decoded"])
        indices = [*rng.integers(0, num_frames, 5).tolist(), num_frames - 1]
        truth, counted = decode_in_order(path, indices)
        assert counted == num_frames, path
        for decoder in (PyAVDecoder(), after_decord):
            worst[path.name, decoder.name] = worst_psnr(decoder.open(path), indices, truth, num_frames)
    assert {key: value for key, value in worst.items() if value < (float("inf") if key[1] == "pyav" else 40)} == {}
