"""What a video file says about itself: one pass over its packets, and one decoded picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from jaxtyping import Float64

from videogn.types import VideoError

# Titles need not be UTF-8. PyAV 19 keeps their other bytes by itself, and knows the word no more.
ANY_METADATA: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}


@dataclass(frozen=True)
class PacketStamp:
    """When a packet is shown (pts) and decoded (dts), in units of the time base; None where the file is silent."""

    pts: int | None
    dts: int | None
    is_keyframe: bool
    is_discarded: bool  # cut away by an edit list: needed to decode, never shown
    is_corrupt: bool


@dataclass(frozen=True)
class Probe:
    """The best video stream of a file.

    Attributes:
        container: FFmpeg's names of the format, for instance "mov,mp4,m4a,3gp,3g2,mj2".
        num_streams: video streams, cover pictures left out.
        stream_index: the best one's place among all streams of the file.
        header_frames: frames that the header promises; 0 where it is silent.
        rate: average frame rate in frames per second; None where the file does not say.
        packets: in decoding order.
        quarter_turns: counter-clockwise, that turn the stored picture upright; 0 .. 3.
        stored_size: (height, width) in pixels, before turning.
    """

    container: str
    num_streams: int
    stream_index: int
    codec: str
    pixel_format: str
    header_frames: int
    rate: float | None
    time_base: Fraction
    packets: list[PacketStamp]
    quarter_turns: int
    stored_size: tuple[int, int]

    @property
    def shown(self) -> list[PacketStamp]:
        return [packet for packet in self.packets if not packet.is_discarded]

    @property
    def times(self) -> list[int]:
        """Presentation times of the shown packets in order, in units of the time base."""
        return sorted(packet.pts for packet in self.shown if packet.pts is not None)

    @property
    def upright_size(self) -> tuple[int, int]:
        height, width = self.stored_size
        return (width, height) if self.quarter_turns % 2 else (height, width)

    @property
    def fps(self) -> float:
        """Frames per second; 1.0 where neither the file nor its packets' times tell."""
        if self.rate is not None:
            return self.rate
        times = self.times
        return (len(times) - 1) / float((times[-1] - times[0]) * self.time_base) if len(set(times)) > 1 else 1.0

    @property
    def has_distinct_times(self) -> bool:
        return len(set(self.times)) == len(self.shown)

    @property
    def times_are_guesses(self) -> bool:
        """AVI stores no presentation times: with B-frames, what FFmpeg makes up is not in their order."""
        return self.container == "avi" and any(packet.pts != packet.dts for packet in self.packets)

    @property
    def tells_frames(self) -> bool:
        """Whether `times` are those of the frames, as far as can be known without decoding them."""
        return (
            self.has_distinct_times
            and not self.times_are_guesses
            and not any(packet.is_corrupt for packet in self.packets)
            and self.header_frames <= len(self.packets)
        )

    @property
    def has_open_gop(self) -> bool:
        """Whether a frame is shown before a keyframe that it follows in the file. Needs distinct times."""
        rank = {time: place for place, time in enumerate(self.times)}
        return any(
            packet.is_keyframe and rank[packet.pts] != place for place, packet in enumerate(self.shown) if packet.pts is not None
        )


def open_container(path: Path) -> InputContainer:
    if not path.is_file():  # also keeps FFmpeg from network addresses and from patterns of image names
        raise VideoError(path, "no such file")
    try:
        # Absolute: a relative name with a colon would be read as a protocol.
        container = av.open(str(path.absolute()), **ANY_METADATA)
    except MemoryError:  # an FFmpegError too, but the fault is not the file's
        raise
    except FFmpegError as error:
        raise VideoError(path, f"cannot be opened: {error.strerror}") from error
    for stream in container.streams.video:
        if stream.codec_context is not None:
            # PyAV's default, a thread a core, patches damaged frames up otherwise than one thread does (14 dB apart).
            stream.codec_context.thread_count = 1
    return container


def video_streams(path: Path, container: InputContainer) -> list[av.VideoStream]:
    """Streams that have a decoder and are no cover picture, the largest picture first."""
    streams = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    if not streams:
        raise VideoError(path, "holds no video stream that can be decoded")
    return sorted(streams, key=lambda stream: -stream.width * stream.height)


def packets(container: InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Packets in decoding order, up to the end of the file or to where it breaks off."""
    try:
        for packet in container.demux(stream):
            if packet.size:  # an empty one would tell the decoder that the video ends
                yield packet
    except MemoryError:
        raise
    except FFmpegError:
        return


def decoded(
    stream: av.VideoStream, packets: Iterable[av.Packet], on_broken: Callable[[FFmpegError], None] | None = None
) -> Iterator[av.VideoFrame]:
    """Frames in the order in which the decoder gives them; broken packets are passed over, each told to `on_broken`."""
    for packet in chain(packets, [None]):
        try:
            frames = stream.decode(packet)
        except MemoryError:
            raise
        except FFmpegError as error:
            if on_broken is not None:
                on_broken(error)
            continue
        yield from frames


def frame_seconds(times: Sequence[int | None], time_base: Fraction, fps: float) -> Float64[np.ndarray, " F"]:
    """Timestamps of the frames of a decode from the start: their presentation times where these increase, else the fps."""
    known = [time for time in times if time is not None]
    if len(known) == len(times) and all(earlier < later for earlier, later in pairwise(known)):
        return np.array(known, dtype=np.float64) * float(time_base)
    return np.arange(len(times)) / fps  # times that contradict the order of the frames say nothing


def probe(path: Path, container: InputContainer) -> Probe:
    """Read all packets of the best stream of a container just opened, and decode its first picture."""
    streams = video_streams(path, container)
    stream = streams[0]
    demuxed = packets(container, stream)
    first = list(islice(demuxed, 1))
    picture = next(decoded(stream, first), None)
    if picture is None:  # the video begins with a broken or a discarded packet
        with open_container(path) as again:
            best = video_streams(path, again)[0]
            picture = next(decoded(best, packets(again, best)), None)
    if picture is None:
        raise VideoError(path, "no frame decodes")
    rate = stream.average_rate or stream.guessed_rate
    assert stream.time_base is not None
    return Probe(
        container=container.format.name,
        num_streams=len(streams),
        stream_index=stream.index,
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=picture.format.name,
        header_frames=stream.frames,
        rate=float(rate) if rate else None,
        time_base=Fraction(stream.time_base),  # PyAV 19 has a class of its own
        packets=[
            PacketStamp(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard, packet.is_corrupt)
            for packet in chain(first, demuxed)
        ],
        quarter_turns=round(picture.rotation / 90) % 4,
        stored_size=(picture.height, picture.width),
    )
