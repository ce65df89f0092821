"""Reads H.264 in mp4 and mov through decord.

decord 0.6 (2021, unmaintained) believes what a container promises, and returns wrong or repeated frames where the
promise does not hold. So a probe looks at the file first, and `open` raises Declined by this rule:

    what the probe finds                         what decord 0.6 would make of it
    more than one video stream                   it may choose another than the largest
    a codec other than H.264                     HEVC: wrong frames (22 dB); AV1, GIF: it does not open them
    pixels other than 8-bit 4:2:0                10-bit: 26 dB; 4:4:4 is right, but too rare to rely on
    a container other than mp4, mov              AVI: a frame too many. TS, Matroska (where every intra frame passes for
                                                 a keyframe that can be sought): frames of other indices
    a frame without a time, or with a second's   frames are known by their times
    packets that an edit list cuts away          it counts and shows them
    a packet marked corrupt, or a header that    it repeats the last frame, or does not return
    promises another number of packets
    a frame shown before the keyframe that it    frames of other indices
    follows in the file (open GOP)
    another number of frames than decord's       its indices are not ours

Rotation is not in the list: decord turns frames upright. A file that decord itself cannot open or decode, a broken
packet for instance, is Declined as well: the fault may be decord's alone.
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

PIXEL_FORMATS = ("yuv420p", "yuvj420p")  # the second has full range: 0 is black, 255 white


class DecordDecoder:
    """Opens videos with decord on the CPU, one thread each: loader workers supply the parallelism.

    Raises:
        InputError: decord cannot be imported; it has wheels for x86-64 only.
    """

    name = "decord"

    def __init__(self) -> None:
        _import_decord()

    def open(self, path: str | Path) -> DecordVideo:
        path = Path(path)
        with open_container(path) as container:
            found = probe(path, container)
        reason = why_declined(found)
        if reason is not None:
            raise Declined(path, f"decord would get it wrong: {reason}; use decoder=pyav")
        return DecordVideo(path, found)


def why_declined(found: Probe) -> str | None:
    """The rule of this module, as a reason; None where decord reads the file right."""
    if found.num_streams > 1:
        return f"{found.num_streams} video streams"
    if found.codec != "h264":
        return f"codec {found.codec}, not h264"
    if found.pixel_format not in PIXEL_FORMATS:
        return f"pixels {found.pixel_format}, not 8-bit 4:2:0"
    if "mp4" not in found.container.split(","):
        return f"container {found.container}, not mp4 or mov"
    if not found.has_distinct_times:
        return "frames without a time of their own"
    if len(found.shown) < len(found.packets):
        return f"an edit list cuts {len(found.packets) - len(found.shown)} frames away"
    if any(packet.is_corrupt for packet in found.packets):
        return "a corrupt packet"
    if found.header_frames not in (0, len(found.packets)):
        return f"{len(found.packets)} packets, but the header promises {found.header_frames}"
    if found.has_open_gop:
        return "frames shown before the keyframe that they follow in the file (open GOP)"
    return None


class DecordVideo:
    """A video that decord reads right; see `videogn.types.Video`.

    Raises:
        Declined: decord opens it not at all, or counts another number of frames than the probe; `frames` raises it too,
            where decord fails to decode.
    """

    def __init__(self, path: Path, found: Probe) -> None:
        decord = _import_decord()
        self._path = path
        self._errors = (decord.DECORDError, RuntimeError, AssertionError)  # the last: no frames
        try:
            # Absolute: a relative name with a colon would be read as a protocol.
            self._reader: Any = decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1)
        except self._errors as error:
            raise Declined(path, f"decord does not open it ({first_line(error)}); use decoder=pyav") from error
        times = found.times
        if len(self._reader) != len(times):
            raise Declined(path, f"decord counts {len(self._reader)} frames of {len(times)}; use decoder=pyav")
        self.timestamps = np.array(times, dtype=np.float64) * float(found.time_base)
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
            batch = self._reader.get_batch(unique).asnumpy()
        except self._errors as error:
            raise Declined(self._path, f"decord cannot decode it ({first_line(error)}); use decoder=pyav") from error
        return batch if len(unique) == len(places) and (np.diff(places) > 0).all() else batch[places]

    def close(self) -> None:
        self._reader = None


def first_line(error: Exception) -> str:
    """decord's message without its time, its C++ place and its stack."""
    return re.sub(r".*\.cc:\d+: ", "", str(error).strip().splitlines()[0])


def _import_decord() -> Any:
    try:
        decord: Any = import_module("decord")  # here, so that this module can be imported where decord has no wheel
    except (ImportError, OSError) as error:
        raise InputError(
            f"decoder=decord: decord cannot be imported here ({error}); pip install decord, which has wheels for "
            "x86-64, or use decoder=pyav"
        ) from error
    decord.logging.set_level(decord.logging.QUIET)  # its complaints reach us as exceptions
    return decord
