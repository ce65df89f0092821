"""Frames by seconds, against a walk through the video by the clock."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogn.sampler.random_clip import RandomClip
from videogn.sampler.rate import MAX_COUNT, MAX_FPS, TOLERANCE_SECONDS, frames_at
from videogn.sampler.spread_clips import SpreadClips
from videogn.sampler.uniform_clips import UniformClips
from videogn.types import InputError


@pytest.mark.parametrize(
    ("times", "fps", "frames"),
    [
        ([0.0, 0.1, 0.2, 0.3], 5, [0, 2]),
        ([0.0, 0.1, 0.2, 0.3], 20, [0, 0, 1, 1, 2, 2, 3, 3]),
        ([0.0, 0.1, 0.4], 10, [0, 1, 1, 1, 2, 2]),
        ([7.0, 7.1, 7.2, 7.3], 5, [0, 2]),  # many files do not begin at 0
        ([0.0, 0.1, 0.2, 0.3], None, [0, 1, 2, 3]),
        ([3.0], 5, [0]),
    ],
)
def test_examples(times: list[float], fps: float | None, frames: list[int]) -> None:
    assert frames_at(np.array(times), fps).tolist() == frames


@given(st.lists(st.floats(0.01, 0.5), min_size=1, max_size=30), st.floats(1, 60))
def test_each_is_the_one_on_screen(gaps: list[float], fps: float) -> None:
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    frames = frames_at(times, fps)
    for place, frame in enumerate(frames.tolist()):
        now = place / fps + TOLERANCE_SECONDS
        assert times[frame] <= now
        assert frame == len(times) - 1 or now < times[frame + 1]
    assert abs(len(frames) - (times[-1] + np.median(gaps)) * fps) <= 1 or len(frames) == 1


@pytest.mark.parametrize("digits", [3, 6, 12])
def test_times_in_whole_milliseconds_make_no_frame_late(digits: int) -> None:
    """Matroska: 0.067 for 0.0666...; without a tolerance every third frame would be the one before."""
    times = np.round(np.arange(90) / 30, digits)
    assert frames_at(times, 30).tolist() == list(range(90))
    assert frames_at(times, 15).tolist() == list(range(0, 90, 2))


@pytest.mark.parametrize("fps", [15, 24, 29.97, 30, 60])
@pytest.mark.parametrize("sampler", [UniformClips, SpreadClips])
def test_a_clip_spans_the_same_seconds_in_every_video(sampler: type, fps: float) -> None:
    times = np.arange(round(10 * fps)) / fps
    clips = sampler(8, 2, 3, target_fps=10)(times, np.random.default_rng(0))
    inside = [clip for clip in clips if clip[-1] > clip[0]]  # one may wrap round the end
    assert len(inside) >= 2
    for clip in inside:
        # 7 steps of 0.2 s, each end off by a frame at most.
        assert abs(times[clip[-1]] - times[clip[0]] - 1.4) <= 1 / fps + 1e-9


NO_COUNTS = [0, -1, -3, 1.5, 2.5, True, None, "abc", MAX_COUNT + 1, 2**63 - 1]
NO_RATES = [0, -1.0, float("nan"), float("inf"), MAX_FPS + 1, 1e9, True, "abc"]


@pytest.mark.parametrize("kind", [RandomClip, SpreadClips, UniformClips])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("clip_length", "frame_stride", "num_clips") for value in NO_COUNTS),
        *(("target_fps", value) for value in NO_RATES),
        ("temporal_jitter", "abc"),
    ],
)
def test_every_sampler_refuses_what_is_no_count_and_no_rate(kind: type, name: str, value: Any) -> None:
    known = inspect.signature(kind).parameters
    if name not in known:
        pytest.skip(f"has no {name}")
    good = {k: v for k, v in {"clip_length": 4, "frame_stride": 2, "num_clips": 3}.items() if k in known}
    with pytest.raises(InputError, match=re.escape(f"sampler: {name}={value}; give ")):
        inspect.unwrap(kind.__init__)(kind(**good), **good | {name: value})


@pytest.mark.parametrize("kind", [RandomClip, SpreadClips, UniformClips])
def test_the_largest_stride_and_rate_give_frames_of_the_video(kind: type) -> None:
    for fps in (MAX_FPS, 1e-300):
        sampler = kind(*([4, MAX_COUNT] + [MAX_COUNT] * (kind is not RandomClip)), target_fps=fps)
        indices = sampler(np.arange(10) / 25, np.random.default_rng(0))
        assert 0 <= indices.min() <= indices.max() < 10
