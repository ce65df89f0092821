"""Windows that slide over a whole video, decoded once and in order, a group at a time however long it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from videogn.dataset.clips import PART_BYTES
from videogn.evaluation.protocol import Protocol
from videogn.number import is_number
from videogn.sampler.rate import TOLERANCE_SECONDS, frames_at
from videogn.types import Decoder, InputError, Sampler, ShortRead, Video, ViewTransform

MIN_HOP_SECONDS = 0.001  # as fine as the times that Matroska writes


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """When the windows of a video begin and end, and which frames each is scored on.

    Seconds count from the first frame, by the timestamps of the video.

    Attributes:
        starts, ends: of each window; both increase.
        frames: indices, of the video's frames.
        duration_seconds: of the video; its last frame stays on screen for the median time between two.
    """

    starts: Float64[np.ndarray, " V"]
    ends: Float64[np.ndarray, " V"]
    frames: Int64[np.ndarray, "V T"]
    duration_seconds: float


class WindowGroup(NamedTuple):
    """Some windows that follow each other. A group with first = 0 that comes again starts all over: the file has recounted."""

    plan: WindowPlan
    first: int  # number of the first window
    clips: UInt8[Tensor, "N T H W 3"]  # all views of the first window, of the second, ...


def seconds_and_duration(timestamps: Float64[np.ndarray, " F"], fps: float) -> tuple[Float64[np.ndarray, " F"], float]:
    """When each frame is shown, from the first on, and how long the video is."""
    seconds = timestamps - timestamps[0]
    return seconds, float(seconds[-1] + (np.median(np.diff(seconds)) if len(seconds) > 1 else 1 / fps))


def plan_windows(
    timestamps: Float64[np.ndarray, " F"], fps: float, sampler: Sampler, hop_seconds: float | None = None
) -> WindowPlan:
    """The windows of SlidingClips with the sampler's clip_length, frame_stride and target_fps.

    A window of T frames at stride s lasts T s frames: until where the next would go on. It is cut at the end of the video, which
    the last window ends with. `hop_seconds` sets them at the frames that are on screen at 0, hop, 2 hop, ...

        10 frames of 0.1 s, clip_length 2, frame_stride 2: the frames 0 2, 4 6 and 7 9
                                                           0 to 0.4 s, 0.4 to 0.8 and 0.7 to 1.0
        the same with hop_seconds 0.25:                    the frames 0 2, 2 4, 5 7 and 7 9
                                                           0 to 0.4 s, 0.2 to 0.6, 0.5 to 0.9 and 0.7 to 1.0

    Raises:
        InputError: hop_seconds is no number from 0.001 on.
    """
    check_hop(hop_seconds)
    length, stride = sampler.clip_length, sampler.frame_stride
    target_fps = getattr(sampler, "target_fps", None)
    seconds, duration = seconds_and_duration(timestamps, fps)
    shown = frames_at(timestamps, target_fps)
    count = len(shown)
    times = seconds if target_fps is None or len(timestamps) < 2 else np.arange(count) / target_fps
    last = max(0, count - ((length - 1) * stride + 1))
    if hop_seconds is None:
        starts = np.arange(0, last, length * stride)
    else:
        instants = np.arange(0, times[last], hop_seconds) + TOLERANCE_SECONDS
        starts = np.unique(np.searchsorted(times, instants, side="right") - 1)
    starts = np.append(starts[starts < last], last)
    frames = shown[(starts[:, None] + np.arange(length) * stride) % count]
    ends = np.append(times, duration)[np.minimum(starts + length * stride, count)]
    # At target_fps the last of them may end half a frame before or behind the video.
    ends = np.append(np.minimum(ends[:-1], duration), duration)
    return WindowPlan(times[starts], ends, frames, duration)


def check_hop(hop_seconds: float | None) -> None:
    """Raises InputError: no number from MIN_HOP_SECONDS on."""
    if hop_seconds is not None and not is_number(hop_seconds, MIN_HOP_SECONDS):
        raise InputError(f"hop: {hop_seconds}: give seconds from one window to the next, at least {MIN_HOP_SECONDS}")


def window_groups(
    path: str | Path, decoder: Decoder, protocol: Protocol, hop_seconds: float | None, group_size: int
) -> Iterator[WindowGroup]:
    """The windows of a file in order, at most `group_size` at a time; raises VideoError."""
    with closing(decoder.open(path)) as video:
        try:
            yield from _groups(video, protocol, hop_seconds, group_size)
        except ShortRead:
            yield from _groups(video, protocol, hop_seconds, group_size)


def _groups(video: Video, protocol: Protocol, hop_seconds: float | None, group_size: int) -> Iterator[WindowGroup]:
    plan = plan_windows(video.timestamps, video.fps, protocol.sampler, hop_seconds)
    crops = protocol.transform.windows(video.height, video.width)
    complete_at = plan.frames.max(1)
    kept: dict[int, list[Tensor]] = {}  # of each frame that a window still needs, its crops
    clips: list[Tensor] = []
    done = 0
    for part, cut in _cuts(video, np.unique(plan.frames), protocol.transform):
        for place, index in enumerate(part):
            kept[index] = [pixels[place] for pixels in cut]
        while done < len(complete_at) and complete_at[done] <= part[-1]:
            clips += [torch.stack([kept[index][crop] for index in plan.frames[done].tolist()]) for crop in range(len(crops))]
            done += 1
            if len(clips) == group_size * len(crops):
                yield WindowGroup(plan, done - group_size, torch.stack(clips))
                clips = []
        if done < len(complete_at):
            oldest = plan.frames[done].min()
            kept = {index: cuts for index, cuts in kept.items() if index >= oldest}
    if clips:
        yield WindowGroup(plan, done - len(clips) // len(crops), torch.stack(clips))


def _cuts(
    video: Video, needed: Int64[np.ndarray, " M"], transform: ViewTransform
) -> Iterator[tuple[list[int], list[UInt8[Tensor, "_M h w 3"]]]]:
    """Some frames after the other, and what each crop shows of them: as many as are decoded at once."""
    step = max(1, PART_BYTES // (video.height * video.width * 3))
    for start in range(0, len(needed), step):
        part = needed[start : start + step].tolist()
        frames = video.frames(part)
        yield part, [transform.cut(frames, crop) for crop in transform.windows(video.height, video.width)]
