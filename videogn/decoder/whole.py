"""All frames of a video from start to end, as PyAV decodes them, and whether any that the file promises are missing.

The same frames in the same order as `PyAVDecoder` gives by index, but as they come out of the decoder: not converted, not
turned upright.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from jaxtyping import Float64, Int64

from videogn.decoder.probe import Probe, decoded, frame_seconds, open_container, packets, probe, video_streams
from videogn.types import VideoError

# Their packets need not show a frame: packed B-frames and frames that were not coded, pictures that others are predicted from.
_WITH_SILENT_PACKETS = frozenset(["mpeg4", "vp8", "vp9"])


class WholeVideo:
    """A video file to be decoded from its start to its end.

    Attributes:
        probe: what the file says about its best video stream.
        times: after `frames` has ended, presentation time of every frame in units of the time base; None where it has none.
        num_broken: packets that did not decode.

    Raises:
        VideoError: no such file, no container, no video stream, or no frame decodes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(open_container(path)) as container:
            self.probe: Probe = probe(path, container)
        self.times: list[int | None] = []
        self.num_broken = 0

    def frames(self) -> Generator[av.VideoFrame, None, None]:
        """Every frame that decodes; each call begins anew.

        Raises:
            VideoError: by the end, that there was none.
            MemoryError: the decoder got no memory, so that what it lost says nothing about the file.
        """
        self.times, self.num_broken = [], 0
        with closing(open_container(self._path)) as container:
            stream = video_streams(self._path, container)[0]
            for frame in decoded(stream, packets(container, stream), self._note):
                self.times.append(frame.pts)
                yield frame
        if not self.times:
            raise VideoError(self._path, "no frame decodes")

    @property
    def seconds(self) -> Float64[np.ndarray, " F"]:
        """Time of every frame that came out of `frames`."""
        return self.seconds_of(self.times)

    def seconds_of(self, times: Sequence[int | None]) -> Float64[np.ndarray, " F"]:
        """Frames of these presentation times in seconds."""
        return frame_seconds(times, self.probe.time_base, self.probe.fps)

    def ticks_of(self, times: Sequence[int | None]) -> tuple[Int64[np.ndarray, " F"], Fraction]:
        """The same as whole numbers of a unit, and the unit in seconds: the file's own, or a frame where times say nothing."""
        ticks = np.array([-1 if time is None else time for time in times], np.int64)
        unit = self.probe.time_base
        if None not in times and np.array_equal(self.seconds_of(times), ticks * float(unit)):
            return ticks, unit
        return np.arange(len(times)), 1 / Fraction(self.probe.fps).limit_denominator(1001)

    @property
    def is_partial(self) -> bool:
        """Whether, after `frames` has ended, frames are known to be missing.

        A packet did not decode or is marked corrupt, fewer frames came out than packets are to be shown, or the header counts
        more packets than there are. The header of an AVI may count one more.
        """
        found = self.probe
        return (
            self.num_broken > 0
            or any(packet.is_corrupt for packet in found.packets)
            or (len(self.times) < len(found.shown) and found.codec not in _WITH_SILENT_PACKETS)
            or found.header_frames > len(found.packets) + (found.container == "avi")
        )

    def _note(self, error: FFmpegError) -> None:
        self.num_broken += 1
