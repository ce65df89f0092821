"""What a full decode finds, against what an independent one found in the same files."""

from __future__ import annotations

import csv
import hashlib
import os
from pathlib import Path

import av
import numpy as np
import pytest

from videogn.decoder.pyav import PyAVDecoder
from videogn.encoder.pyav import write_video
from videogn.preparation.verify import Facts, verify
from videogn.types import VideoError

# A file of each kind: rotated, AVI with B-frames whose header counts one more, variable frame rate, two streams, sound only,
# broken, GIF, AV1, 10 bits, non-UTF-8 metadata.
ODD = [
    *("decord/corrupted.mp4", "decord/flipping_a_pancake.mkv", "decord/video_90.mov", "decord/video_180.mov"),
    *("mmaction2/test.avi", "mmaction2/demo_spatiotemporal_det.mp4", "mmaction2/spatio-temporal-det.gif", "mmaction2/test.wav"),
    *("torchcodec/av1_video.mkv", "torchcodec/h265_10bits.mp4", "torchcodec/nasa_13013.mp4", "torchcodec/sine_mono_s16.wav"),
    *("vision/RATRACE_wave_f_nm_np1_fr_goo_37.avi", "vision/hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi"),
    "truncated_download/Cov_denault_proposedUS_vid14.mov",
]
# Facts are of the first stream, 320 x 180; the best one is 480 x 270.
BEST_STREAM = {"torchcodec/nasa_13013.mp4": (390, 480, 270)}
# It could not be opened where the facts were found. The file here is whole: 137 packets, of which an edit list hides one.
WHOLE_HERE = {"truncated_download/Cov_denault_proposedUS_vid14.mov": 136}


@pytest.mark.parametrize("name", ODD)
def test_agrees_with_an_independent_decode(name: str, real_videos: Path) -> None:
    with (real_videos / "odd" / "facts.csv").open(newline="") as file:
        known = next(row for row in csv.DictReader(file) if row["path"] == name)
    path = real_videos / "odd" / name
    if known["status"] == "no-video":
        with pytest.raises(VideoError, match="no video stream that can be decoded"):
            verify(path)
        return
    found = verify(path)
    assert found.num_bytes == path.stat().st_size
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    video = PyAVDecoder().open(path)
    assert (found.height, found.width) == (video.height, video.width)
    if name in WHOLE_HERE:
        assert (found.status, found.num_frames) == ("ok", WHOLE_HERE[name])
        return
    expected = int(known["frames_decoded"]), int(known["width"]), int(known["height"])
    num_frames, width, height = BEST_STREAM.get(name, expected)
    if int(known["rotation"]) % 180:
        width, height = height, width
    assert (found.num_frames, found.width, found.height) == (num_frames, width, height)
    assert found.status == known["status"]
    assert found.codec == {"libdav1d": "av1"}.get(known["codec"], known["codec"])
    if name not in BEST_STREAM:
        assert found.fps == pytest.approx(float(known["fps"]), abs=1e-3)
    assert found.duration_seconds == pytest.approx(video.timestamps[-1] - video.timestamps[0] + 1 / video.fps, abs=0.2)


def pictures(num_frames: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (num_frames, 32, 48, 3), np.uint8))


@pytest.mark.parametrize("name", ["a b, 'c' \"d\".mp4", os.fsdecode(b"caf\xe9.mp4")], ids=["quotes", "no_utf8"])
def test_any_file_name(name: str, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", pictures(10), 20)
    (tmp_path / "v.mp4").rename(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    assert verify(tmp_path / name) == Facts(10, 20.0, 32, 48, "h264", 0.5, len(content), sha256, "ok")


def write(path: Path, codec: str) -> list[tuple[int, int]]:
    """60 frames, the index at the front; offset and size of every packet."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for picture in pictures(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("bytes_of_the_next", [0, 9], ids=["between_packets", "within_a_packet"])
def test_a_download_cut_short_is_partial(bytes_of_the_next: int, tmp_path: Path) -> None:
    """The index counts 60 frames, of which 45 are in the file, and none is broken."""
    packets = write(tmp_path / "v.mp4", "libx264")
    content = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "v.mp4").write_bytes(content[: packets[45][0] + bytes_of_the_next])
    found = verify(tmp_path / "v.mp4")
    assert found.status == "partial"
    assert found.num_frames == 45


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_broken_packet_is_partial(codec: str, tmp_path: Path) -> None:
    """Also in MPEG-4, where a packet without a frame is nothing unusual."""
    packets = write(tmp_path / "v.avi", codec)
    assert verify(tmp_path / "v.avi").status == "ok"
    content = bytearray((tmp_path / "v.avi").read_bytes())
    offset, size = packets[7]
    offset += 8 if content[offset : offset + 4] == b"00dc" else 0
    content[offset : offset + size] = bytes(size)
    (tmp_path / "v.avi").write_bytes(content)
    found = verify(tmp_path / "v.avi")

    assert found.status == "partial"
    assert found.num_frames < 60


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "cannot be opened"), (b"no video", "cannot be opened"), (None, "no such file")]
)
def test_no_video(content: bytes | None, reason: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=reason):
        verify(tmp_path / "v.mp4")
