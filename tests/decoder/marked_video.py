"""Videos whose frames carry their own index in the picture; the truth about a video, one decode from start to end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from videogn.decoder.probe import ANY_METADATA

HEIGHT, WIDTH = 64, 96
BITS, BLOCK = 10, 16  # ten blocks of 16 x 32 pixels, dark or bright, at the left; noise at the right


def marked_picture(index: int) -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH, 3), 16, np.uint8)
    for bit in range(BITS):
        top, left = bit // 5 * 2 * BLOCK, bit % 5 * BLOCK
        picture[top : top + 2 * BLOCK, left : left + BLOCK] = 235 if index >> bit & 1 else 16
    noise = np.random.default_rng(index).integers(0, 256, (8, 2, 3), dtype=np.uint8)
    picture[:, 5 * BLOCK :] = noise.repeat(8, axis=0).repeat(8, axis=1)
    return picture


def mark(picture: np.ndarray) -> int:
    """The index in the picture; blocks are read at their middle, where compression does not matter."""
    index = 0
    for bit in range(BITS):
        top, left = bit // 5 * 2 * BLOCK, bit % 5 * BLOCK
        index |= int(picture[top + 8 : top + 24, left + 4 : left + 12].mean() > 128) << bit
    return index


def marks(pictures: np.ndarray) -> list[int]:
    return [mark(picture) for picture in pictures]


def write_marked(
    path: Path,
    num_frames: int = 60,
    *,
    gop: int = 12,
    max_b_frames: int = 0,
    x264: str = "scenecut=0",
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 30),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    num_streams: int = 1,
    container_options: dict[str, str] | None = None,
) -> Path:
    """`times`: presentation time of each frame in units of `time_base`; by default its index."""
    options = {"crf": "20", "preset": "veryfast", "x264-params": x264} if codec == "libx264" else {}
    with av.open(str(path), "w", options=container_options or {}) as container:
        streams = [container.add_stream(codec, rate=30, options=options) for _ in range(num_streams)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
            stream.gop_size, stream.max_b_frames = gop, max_b_frames
            stream.codec_context.time_base = time_base
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(marked_picture(index), format="rgb24")
            frame.pts, frame.time_base = index if times is None else times[index], time_base
            for stream in streams:
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def packet_places(path: Path) -> list[tuple[int, int]]:
    """(offset, size) in bytes of each packet, in decoding order."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def cut_short(path: Path, packets: int) -> Path:
    """End the file in the middle of a packet, as an interrupted download does."""
    offset, size = packet_places(path)[packets]
    path.write_bytes(path.read_bytes()[: offset + size // 2])
    return path


def break_packet(path: Path, packet: int) -> Path:
    offset, size = packet_places(path)[packet]
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    return path


def cut_by_edit_list(source: Path, path: Path, first: int) -> Path:
    """Copy packets so that the frames before `first` have negative times: mp4 hides them by an edit list."""
    with av.open(str(source)) as read, av.open(str(path), "w") as written:
        stream = read.streams.video[0]
        copy = written.add_stream_from_template(stream)
        shift = round(first / 30 / stream.time_base)
        for packet in read.demux(stream):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                written.mux(packet)
    return path


def decode_in_order(path: Path, wanted: Collection[int] | None = None) -> tuple[dict[int, np.ndarray], int]:
    """({index: upright RGB frame} of the wanted frames, or of all; number of frames): no seek, no index, no probe."""
    frames, index = {}, 0
    with av.open(str(path), **ANY_METADATA) as container:
        stream = max(container.streams.video, key=lambda stream: stream.width * stream.height)
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                if wanted is None or index in wanted:
                    pixels = frame.to_ndarray(format="rgb24", interpolation="BILINEAR")
                    frames[index] = np.rot90(pixels, frame.rotation // 90 % 4)
                index += 1
    return frames, index


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    if one.shape != other.shape:
        return 0.0
    error = np.mean((one.astype(np.float32) - other) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
