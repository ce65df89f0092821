"""Reads videos through torchcodec, which uses the FFmpeg that is installed on the system.

A probe looks at the file first, and `open` raises Declined by this rule:

    what the probe finds                         what torchcodec 0.17 would make of it
    pixels other than 8-bit                      10-bit: 27 dB from the reference
    an AVI with B-frames, whose times FFmpeg     frames of other indices, 21 to 35 dB
    makes up; two frames with one time
    an MPEG transport or program stream          seeks land late, and it does not decode
    a packet marked corrupt, or a header that    it fails, or counts frames that do not decode
    promises another number of packets
    another number of frames than torchcodec's   its indices are not ours

And `frames` raises it where a frame carries another time than it should, or does not decode. Rotation, edit lists, open GOPs,
several streams and variable rates are not in the list: torchcodec gets them right.

Frames are looked up in an index that torchcodec makes of all packets (seek_mode "exact", 2 to 5 ms a video more than
"approximate", which computes a frame's place from the average rate and so gives others where the rate varies).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from videogn.decoder.probe import Probe, open_container, probe
from videogn.types import Declined, InputError

PIXEL_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "bgra")  # the last: GIF
ERRORS = (RuntimeError, ValueError, IndexError)  # torchcodec has none of its own


class TorchCodecDecoder:
    """Opens videos with torchcodec on the CPU, one thread each: loader workers supply the parallelism.

    Raises:
        InputError: torchcodec cannot be imported, or finds no FFmpeg.
    """

    name = "torchcodec"

    def __init__(self) -> None:
        _import_torchcodec()

    def open(self, path: str | Path) -> TorchCodecVideo:
        path = Path(path)
        with open_container(path) as container:
            found = probe(path, container)
        reason = why_declined(found)
        if reason is not None:
            raise Declined(path, f"torchcodec would get it wrong: {reason}; use decoder=pyav")
        return TorchCodecVideo(path, found)


def why_declined(found: Probe) -> str | None:
    """The rule of this module, as a reason; None where torchcodec reads the file right."""
    if found.pixel_format not in PIXEL_FORMATS:
        return f"pixels {found.pixel_format}, not 8-bit YUV"
    if not found.has_distinct_times:
        return "frames without a time of their own"
    if found.times_are_guesses:
        return "an AVI with B-frames, which have no times"
    if found.container in ("mpegts", "mpeg"):
        return f"container {found.container}"
    if any(packet.is_corrupt for packet in found.packets):
        return "a corrupt packet"
    if found.header_frames not in (0, len(found.packets)):
        return f"{len(found.packets)} packets, but the header promises {found.header_frames}"
    return None


class TorchCodecVideo:
    """A video that torchcodec reads right; see `videogn.types.Video`.

    Raises:
        Declined: torchcodec does not open it, or counts another number of frames than the probe; `frames` raises it too, where a
            frame does not decode or is another than it should be.
    """

    def __init__(self, path: Path, found: Probe) -> None:
        self._path = path
        try:
            self._reader: Any = _import_torchcodec().VideoDecoder(
                str(path.absolute()),  # a relative name with a colon would be read as a protocol
                stream_index=found.stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                seek_mode="exact",
            )
        except ERRORS as error:
            raise Declined(path, f"torchcodec does not open it ({first_line(error)}); use decoder=pyav") from error
        times = found.times
        if len(self._reader) != len(times):
            raise Declined(path, f"torchcodec counts {len(self._reader)} frames of {len(times)}; use decoder=pyav")
        self._time_base = float(found.time_base)
        self.timestamps = np.array(times, dtype=np.float64) * self._time_base
        self.num_frames = len(times)
        self.fps = found.fps
        self.height, self.width = found.upright_size

    def frames(self, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        """RGB frames at `indices`, in their order; each frame is decoded once."""
        for index in indices:
            if not 0 <= index < self.num_frames:
                raise IndexError(f"{self._path}: frame {index} of a video of {self.num_frames}")
        if not len(indices):
            return np.empty((0, self.height, self.width, 3), dtype=np.uint8)
        unique, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        try:
            batch = self._reader.get_frames_at(unique.tolist())
        except ERRORS as error:
            raise Declined(self._path, f"torchcodec cannot decode it ({first_line(error)}); use decoder=pyav") from error
        wrong = np.abs(batch.pts_seconds.numpy() - self.timestamps[unique]) > self._time_base / 2
        if wrong.any():
            raise Declined(self._path, f"torchcodec gives another frame in place of {unique[wrong][0]}; use decoder=pyav")
        frames = batch.data.numpy()
        if frames.shape[1:] != (self.height, self.width, 3):
            height, width = frames.shape[1:3]
            raise Declined(self._path, f"torchcodec gives {width}x{height} for {self.width}x{self.height}; use decoder=pyav")
        return frames if len(unique) == len(places) and (np.diff(places) > 0).all() else frames[places]

    def close(self) -> None:
        self._reader = None


def first_line(error: Exception) -> str:
    """torchcodec's message without its C++ place."""
    lines = str(error).strip().splitlines()
    return re.sub(r"^\w+, \S+\.cpp:\d+, ", "", lines[0]) if lines else type(error).__name__


def _import_torchcodec() -> Any:
    try:
        return import_module("torchcodec.decoders")  # here: it imports torch, and is an extra
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(
            f"decoder=torchcodec: torchcodec cannot be imported here ({first_line(error)}); pip install 'videogn[torchcodec]' "
            "and FFmpeg's shared libraries (Debian: apt install ffmpeg), or use decoder=pyav"
        ) from error
