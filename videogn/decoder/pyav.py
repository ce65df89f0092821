"""Reads any video that FFmpeg reads, through PyAV: the reference that every other decoder is held to.

The index comes from the packets: their presentation times in order are the timestamps of the frames. A frame is found
by seeking to the keyframe at or before it, decoding forward and comparing times. Where packets cannot be trusted, the
video is decoded once to learn which frames it has, and from then on a frame is known by its place among those that the
decoder gives, counted from the start of the file without seeks. That is slow and right; it concerns

    packets without a time, or two with the same     raw streams, old Matroska
    AVI with B-frames                                HMDB51
    a packet marked corrupt, or fewer packets than
    the header promises                              downloads cut short
    a frame that does not come out where its packet
    says, found while reading                        damage, decoders that start late after a seek
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from videogn.decoder.probe import Probe, decoded, frame_seconds, open_container, packets, probe, video_streams
from videogn.types import ShortRead, VideoError

# What PyAV and decord do when told nothing, stated because it decides the pixels: both then give the same bits on x86
# (2026-11, PyAV 18.1, decord 0.6, 22 files). SWS_ACCURATE_RND, the other common choice, is 32 to 48 dB away.
SWS_BILINEAR = 2


# A seek throws away what the decoder holds back for reordering, and looks for the keyframe: worth it from here on.
FRAMES_PER_SEEK = 4

# Decoders that are told frame by frame what they may leave out; others take it once and for all, or not at all.
LEAVES_OUT = ("h264", "hevc")


class Keyframe(NamedTuple):
    pts: int
    # Some demuxers (mov) search by pts, and given the dts of a keyframe would land at the one before; others search by dts, and
    # given a pts may land behind the keyframe. The lesser of the two never does.
    earliest: int


class PyAVDecoder:
    """Opens videos with PyAV, one thread each: loader workers supply the parallelism."""

    name = "pyav"

    def open(self, path: str | Path) -> PyAVVideo:
        return PyAVVideo(Path(path))


class PyAVVideo:
    """The largest video stream of a file, upright; see `videogn.types.Video`.

    Raises:
        VideoError: no such file, no container, no video stream, or no frame decodes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._converter = VideoReformatter()
        self._container = open_container(path)
        try:
            self._index(probe(path, self._container))
        except BaseException:
            self.close()
            raise

    def frames(self, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        """RGB frames at `indices`, in their order; each frame is decoded once.

        Raises:
            ShortRead: a frame does not decode. `timestamps` and `num_frames` now hold what does.
            IndexError: an index outside 0 .. num_frames - 1.
        """
        places = defaultdict(list)
        for place, index in enumerate(indices):
            if not 0 <= index < self.num_frames:
                raise IndexError(f"{self._path}: frame {index} of a video of {self.num_frames}")
            places[index].append(place)
        out = np.empty((len(indices), self.height, self.width, 3), dtype=np.uint8)
        for index in sorted(places):
            frame = self._read(self._marks[index])
            if frame is None:
                self._recount()
                return self.frames(indices)
            out[places[index]] = self._pixels(frame)
        return out

    def close(self) -> None:
        self._reading = iter(())
        self._container.close()

    def _index(self, found: Probe) -> None:
        self._stored_size, self._quarter_turns = found.stored_size, found.quarter_turns
        self.height, self.width = found.upright_size
        self.fps = found.fps
        self._time_base = found.time_base
        # A mark is what a frame is known by: its presentation time, or with _in_order its place among the decoded.
        self._marks = found.times
        self._keyframes = sorted(
            Keyframe(packet.pts, packet.pts if packet.dts is None else min(packet.pts, packet.dts))
            for packet in found.packets
            if packet.is_keyframe and packet.pts is not None
        )
        self._in_order = not found.tells_frames
        self._reading: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._last: int | None = None  # mark of the frame that was read last
        self._sought = 0  # and of the one that is being read
        if self._in_order:
            self._count()
        else:
            self._set_times(np.array(self._marks, dtype=np.float64) * float(self._time_base))

    def _set_times(self, timestamps: np.ndarray) -> None:
        self.timestamps, self.num_frames = timestamps, len(timestamps)

    def _count(self) -> None:
        """Decode everything once; from now on frames are known by their place."""
        self._in_order = True
        times = [frame.pts for _, frame in self._from_start()]
        if not times:
            raise VideoError(self._path, "no frame decodes")
        self._marks, self._last = list(range(len(times))), None
        self._set_times(frame_seconds(times, self._time_base, self.fps))

    def _recount(self) -> None:
        """Find out why a frame did not come out: because of a seek, which is mended, or because it does not decode."""
        promised, sought = self.timestamps, not self._in_order
        self._count()
        if not (sought and np.array_equal(promised, self.timestamps)):
            raise ShortRead(self._path, f"{self.num_frames} frames decode of the {len(promised)} promised")

    def _read(self, mark: int) -> av.VideoFrame | None:
        """The frame that carries `mark`, or None where it does not come out."""
        self._sought = mark
        keyframe = None
        if not self._in_order:
            place = bisect_right(self._keyframes, mark, key=attrgetter("pts"))
            keyframe = self._keyframes[place - 1] if place else None
        if self._last is None or self._last >= mark or self._saved(self._last, keyframe) > FRAMES_PER_SEEK:
            self._reading = self._from_start() if keyframe is None else self._from_keyframe(keyframe)
        for found, frame in self._reading:
            self._last = found
            if found >= mark:
                return frame if found == mark else None
        return None

    def _saved(self, mark: int, keyframe: Keyframe | None) -> int:
        """Frames that a seek to `keyframe` spares a reader who stands at `mark`."""
        return 0 if keyframe is None else bisect_right(self._marks, keyframe.pts) - bisect_right(self._marks, mark)

    def _from_keyframe(self, keyframe: Keyframe) -> Iterator[tuple[int, av.VideoFrame]]:
        stream = video_streams(self._path, self._container)[0]
        for target in sorted({keyframe.pts, keyframe.earliest}, reverse=True):
            try:
                self._container.seek(target, stream=stream)
            except MemoryError:
                raise
            except FFmpegError:
                return self._from_start()
            demuxed = packets(self._container, stream)
            first = next(demuxed, None)
            # Some demuxers land anywhere; an earlier keyframe serves, all else does not.
            if first is not None and first.is_keyframe and first.pts is not None and first.pts <= keyframe.pts:
                break
        else:
            return self._from_start()
        # Matroska flags every intra frame but indexes only the true keyframes: do not ask for the others again.
        landed = first.pts
        self._keyframes = [known for known in self._keyframes if not landed < known.pts <= keyframe.pts]
        return self._marked(decoded(stream, self._lightened(stream, chain([first], demuxed))))

    def _from_start(self) -> Iterator[tuple[int, av.VideoFrame]]:
        self._container.close()
        self._container = open_container(self._path)
        stream = video_streams(self._path, self._container)[0]
        return self._marked(decoded(stream, self._lightened(stream, packets(self._container, stream))))

    def _lightened(self, stream: av.VideoStream, demuxed: Iterator[av.Packet]) -> Iterator[av.Packet]:
        """The packets; the decoder is told before each whether to leave its frame out, if no other needs it: its time is past."""
        context = stream.codec_context
        if self._in_order or context.name not in LEAVES_OUT:
            yield from demuxed
            return
        for packet in demuxed:
            is_past = packet.pts is not None and packet.pts < self._sought
            context.skip_frame = "NONREF" if is_past else "DEFAULT"
            yield packet

    def _marked(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        if self._in_order:
            return enumerate(frames)
        # A frame without a time is as good as missing: the search for its mark passes it and ends in a recount.
        return ((frame.pts, frame) for frame in frames if frame.pts is not None)

    def _pixels(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
        height, width = self._stored_size  # of the first frame: some streams change size on the way
        # Without a converter of our own PyAV 19 keeps one for all videos, whose threads a forked worker would wait for in vain.
        converted = self._converter.reformat(frame, width, height, "rgb24", interpolation=SWS_BILINEAR, threads=1)
        pixels = converted.to_ndarray()
        return np.rot90(pixels, self._quarter_turns)
