"""Writes frames to a video file through PyAV: pictures in RGB, or frames as a decoder gives them, for training to read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from videogn.types import InputError


def write_video(
    path: str | Path,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    fps: int | float | Fraction,
    *,
    codec: str = "libx264",
    crf: int = 18,
    gop: int = 16,
    max_b_frames: int = 0,
    preset: str = "veryfast",
    pixel_format: str = "yuv420p",
) -> None:
    """Write RGB frames of one size as a video without sound; the suffix of `path` names the container.

    The file is written beside its place and moved there when it is whole, so `path` is never half a video. The same
    frames give the same bytes under the same versions: one thread, no dates, no version of the muxer.

    Args:
        frames: uint8 (H, W, 3), read once, one held at a time.
        fps: frames per second.
        crf: constant rate factor; 0 is lossless in libx264, 18 close to what the eye can tell.
        gop: most frames from one keyframe to the next. Reading a clip decodes gop / 2 unwanted frames on average.
        max_b_frames: most B-frames in a row; they make files smaller and random access slower.

    Raises:
        InputError: no frames, a frame that is no uint8 (H, W, 3) of the first one's size, a size that the chroma of
            `pixel_format` does not divide, or a suffix that names no container.
    """
    path = Path(path).absolute()  # a relative name with a colon would be read as a protocol
    rate = Fraction(fps).limit_denominator(1001)  # 30000/1001 is the finest rate in use
    if rate <= 0:
        raise InputError(f"{path}: fps={fps} must be positive")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{path}: no frames to write")
    _check_frame(path, first, first.shape)
    height, width = first.shape[:2]
    _check_size(path, height, width, pixel_format)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        container = _create(path, unfinished)
        with container:
            options = {"crf": str(crf), "preset": preset}
            if codec == "libx264":
                # With x264's macroblock tree the last macroblock depends on memory that nobody wrote: of 600 encodings of
                # ten videos of 64 x 80, 162 had other bytes; without it none of 400.
                options["mbtree"] = "0"
            stream = container.add_stream(codec, rate=rate, options=options)
            assert isinstance(stream, av.VideoStream), codec
            stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
            stream.gop_size, stream.max_b_frames = gop, max_b_frames
            stream.codec_context.thread_count = 1  # more threads change the bytes
            for index, pixels in enumerate(chain([first], frames)):
                _check_frame(path, pixels, first.shape)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = index, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def even(frames: UInt8[np.ndarray, "*T H W 3"], smallest: int = 2) -> UInt8[np.ndarray, "*T H2 W2 3"]:
    """Frames as `write_video` takes them: the last row and column repeated up to even sizes of at least `smallest`."""
    down, across = (max(smallest, size + size % 2) - size for size in frames.shape[-3:-1])
    if not down and not across:
        return frames
    return np.pad(frames, [(0, 0)] * (frames.ndim - 3) + [(0, down), (0, across), (0, 0)], "edge")


def write_frames(
    path: Path,
    frames: Iterable[tuple[int, av.VideoFrame]],
    time_base: Fraction,
    fps: float,
    size: tuple[int, int],
    quarter_turns: int,
    *,
    crf: int,
    gop: int,
    preset: str,
) -> int:
    """Scale decoded frames and write them as H.264 that decodes fast: no B-frames, no CABAC, no deblocking, no sound.

    The matrix and range of the colours are kept and named in the file. The same frames give the same bytes, as by
    `write_video`. What was written of a file that fails is left for the caller, who knows where it lies.

    Args:
        path: the file, whose suffix names the container.
        frames: each with its time in units of `time_base`, increasing; not turned upright. Read once, one held at a time.
        fps: average frames per second; the last frame is shown for as long.
        size: (height, width) to scale to, upright, both even.
        quarter_turns: counter-clockwise, that turn a frame upright.
        gop: most frames from one keyframe to the next.

    Returns:
        The number of frames written.

    Raises:
        InputError: no frames.
        OSError: the file cannot be written, for instance because the disk is full (ENOSPC).
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{path}: no frames to write")
    height, width = size
    scaled = (width, height) if quarter_turns % 2 else (height, width)
    converter = VideoReformatter()
    count = 0
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        options = {"crf": str(crf), "preset": preset, "tune": "fastdecode", "mbtree": "0"}  # mbtree: see write_video
        stream = container.add_stream(
            "libx264", rate=max(Fraction(1, 1001), Fraction(fps).limit_denominator(1001)), options=options
        )
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size, stream.max_b_frames = gop, 0
        stream.codec_context.thread_count = 1
        stream.time_base = stream.codec_context.time_base = time_base
        _keep_colours(stream, first[1])
        for time, frame in chain([first], frames):
            picture = converter.reformat(frame, scaled[1], scaled[0], "yuv420p", interpolation=Interpolation.BICUBIC, threads=1)
            if quarter_turns:
                picture = _turned(picture, quarter_turns)
            picture.pts, picture.time_base, picture.pict_type = time, time_base, 0  # else x264 is told where keyframes were
            container.mux(stream.encode(picture))
            count += 1
        container.mux(stream.encode(None))
    return count


def _keep_colours(stream: av.VideoStream, frame: av.VideoFrame) -> None:
    """Name matrix and range as the source does, so that a reader turns both into the same RGB."""
    if frame.format.name.startswith("yuv"):
        context = stream.codec_context
        context.colorspace, context.color_range = frame.colorspace, frame.color_range
        context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc


def _turned(frame: av.VideoFrame, quarter_turns: int) -> av.VideoFrame:
    """A yuv420p frame turned counter-clockwise, plane by plane."""
    turned = [np.rot90(_plane(plane), quarter_turns) for plane in frame.planes]
    height, width = turned[0].shape
    out = av.VideoFrame(width, height, "yuv420p")
    for plane, pixels in zip(out.planes, turned, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = pixels
        plane.update(rows.tobytes())
    out.colorspace, out.color_range = frame.colorspace, frame.color_range
    return out


def _plane(plane: VideoPlane) -> UInt8[np.ndarray, "H W"]:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def _create(path: Path, unfinished: Path) -> OutputContainer:
    try:
        return av.open(str(unfinished), "w", options={"fflags": "+bitexact"})
    except ValueError as error:  # PyAV guesses the container from the suffix
        raise InputError(f"{path}: suffix {path.suffix!r} names no container; use .mp4, .mkv or .avi") from error


def _check_frame(path: Path, pixels: np.ndarray, shape: tuple[int, ...]) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(f"{path}: a frame is {pixels.dtype} {pixels.shape}; frames are uint8 (H, W, 3), RGB")
    if pixels.shape != shape:
        raise InputError(f"{path}: a frame is {pixels.shape} but the first was {shape}; all frames have one size")


def _check_size(path: Path, height: int, width: int, pixel_format: str) -> None:
    layout = av.VideoFormat(pixel_format, 16, 16)
    across, down = 16 // layout.chroma_width(), 16 // layout.chroma_height()
    if width % across or height % down:
        raise InputError(
            f"{path}: {pixel_format} shares colour among {across} x {down} pixels, which do not divide the "
            f"{width} x {height} of the frames (width x height); crop them or use pixel_format=yuv444p"
        )
