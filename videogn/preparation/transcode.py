"""Write a video anew so that clips are read fast: small, a keyframe every 16 frames, no B-frames, no sound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from videogn.decoder.whole import WholeVideo
from videogn.encoder.pyav import write_frames
from videogn.number import is_count, is_number
from videogn.preparation.verify import Facts
from videogn.sampler.rate import frames_at
from videogn.types import InputError, VideoError

# x264's presets from ultrafast to slow; what follows only makes files smaller.
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow")


@dataclass(frozen=True)
class Settings:
    """How videos are written.

    Args:
        short_side: pixels of the shorter side; a smaller video is not enlarged.
        crf: x264's constant rate factor, 0 to 51; lower is better and larger.
        gop: most frames from one keyframe to the next.
        preset: of x264: how long it searches.
        target_fps: frames per second that are kept of a video that has more; None keeps all, at their own times.
        frame_stride: every how many of these frames is kept.

    Raises:
        InputError: a value that is none of these.
    """

    short_side: int = 256
    crf: int = 20
    gop: int = 16
    preset: str = "veryfast"
    target_fps: int | float | None = None
    frame_stride: int = 1

    def __post_init__(self) -> None:
        if not is_count(self.short_side, 16, 16384) or self.short_side % 2:
            raise InputError(f"short_side={self.short_side}: give an even number of pixels from 16 to 16384")
        if not is_count(self.crf, 0, 51):
            raise InputError(f"crf={self.crf}: give a whole number from 0 (lossless) to 51; 18 to 23 are usual")
        for key, value in (("gop", self.gop), ("frame_stride", self.frame_stride)):
            if not is_count(value, 1, 10**6):
                raise InputError(f"{key}={value}: give a whole number of frames from 1 to 1000000")
        if self.preset not in PRESETS:
            raise InputError(f"preset={self.preset}: use one of {', '.join(PRESETS)}")
        fps = self.target_fps
        if fps is not None and not is_number(fps, 0.01, 1000):
            raise InputError(f"target_fps={fps}: give frames per second from 0.01 to 1000, or null for each video's own")


def written_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) in even pixels, the shorter one `short_side` where it is no less.

    720 x 1280, 256: 256 x 456 (455.1 rounds to 456, the nearest even number); 33 x 47, 256: 32 x 46 (an odd row is lost)
    """
    scale = short_side / min(height, width)
    if scale >= 1:
        return max(2, height - height % 2), max(2, width - width % 2)
    return round(height * scale / 2) * 2, round(width * scale / 2) * 2


def kept(
    seconds: Float64[np.ndarray, " F"], target_fps: int | float | None, frame_stride: int
) -> tuple[Int64[np.ndarray, " V"], Int64[np.ndarray, " V"]]:
    """The frames to keep, and with a target_fps the time of each in units of 1 / target_fps, else its index.

    They are the frames that a sampler of this target_fps would see, each once, at the time of its first showing: no frame is
    repeated, a video of fewer frames per second keeps all of them.

        6 frames at 0.0 .. 0.5 s, target_fps 5: 0 2 4 at 0 1 2; target_fps 20: 0 1 2 3 4 5 at 0 2 4 6 8 10
        6 frames, target_fps None, frame_stride 2: 0 2 4 at 0 2 4
    """
    frames, times = np.unique(frames_at(seconds, target_fps), return_index=True)
    return frames[::frame_stride], times[::frame_stride]


def transcode(path: Path, out: Path, settings: Settings) -> tuple[Facts, Facts]:
    """Decode every frame of a video once, write those to keep, and decode the written file to see that it has them.

    Args:
        out: the file to write. What is left of one that failed is the caller's to remove.

    Returns:
        The facts of the video and of the written file.

    Raises:
        VideoError: the video cannot be read, or the written file is not what it should be.
        OSError: the file cannot be written, for instance because the disk is full (ENOSPC).
        MemoryError: there was not enough memory.
    """
    video = WholeVideo(path)
    try:
        if not video.probe.tells_frames:
            raise _OtherTimes
        times: list[int | None] = list(video.probe.times)
        num_written, seconds = _write(video, times, out, settings)
    except _OtherTimes:
        for _ in video.frames():
            pass
        times = list(video.times)
        try:
            num_written, seconds = _write(video, times, out, settings)
        except _OtherTimes:
            raise VideoError(path, "decodes otherwise every time") from None
    source = Facts.of(path, video)
    written = WholeVideo(out)
    for _ in written.frames():
        pass
    facts = Facts.of(out, written)
    # The muxer's clock is finer than 0.1 ms.
    if facts.status != "ok" or facts.num_frames != num_written or not np.allclose(written.seconds, seconds, atol=1e-3, rtol=0):
        raise VideoError(
            path, f"was written wrong: {facts.num_frames} frames of {num_written} ({facts.status}) are in the new file"
        )
    return source, facts


_NOTHING: Any = object()


class _OtherTimes(Exception):
    """The frames that come out are not those that the packets promise: they must be counted first."""


def _write(video: WholeVideo, times: list[int | None], out: Path, settings: Settings) -> tuple[int, Float64[np.ndarray, " V"]]:
    """Write the frames to keep of those at `times`; how many, and at which seconds they are shown."""
    found = video.probe
    seconds = video.seconds_of(times)
    frames, slots = kept(seconds, settings.target_fps, settings.frame_stride)
    if settings.target_fps is not None:
        unit = 1 / Fraction(settings.target_fps).limit_denominator(1001)
        ticks = slots
    else:
        all_ticks, unit = video.ticks_of(times)
        ticks = all_ticks[frames]
    # The muxer gives the first frame the time 0.
    ticks = ticks - ticks[0]
    shown = ticks * float(unit)
    fps = (len(shown) - 1) / shown[-1] if len(shown) > 1 else found.fps
    tick_of = dict(zip(frames.tolist(), ticks.tolist(), strict=True))

    def wanted() -> Iterator[tuple[int, Any]]:
        with closing(video.frames()) as decoding:
            for place, (frame, time) in enumerate(zip_longest(decoding, times, fillvalue=_NOTHING)):
                if frame is _NOTHING or time is _NOTHING or frame.pts != time:
                    raise _OtherTimes
                if place in tick_of:
                    yield tick_of[place], frame

    size = written_size(*found.upright_size, settings.short_side)
    count = write_frames(
        out, wanted(), unit, float(fps), size, found.quarter_turns, crf=settings.crf, gop=settings.gop, preset=settings.preset
    )
    return count, shown
