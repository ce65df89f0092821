"""Sliding windows against a decode of everything, and how much is decoded at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import videogn.prediction.windows
from videogn.decoder.pyav import PyAVDecoder
from videogn.evaluation.protocol import Protocol
from videogn.prediction.windows import plan_windows, window_groups
from videogn.sampler.sliding_clips import SlidingClips
from videogn.sampler.uniform_clips import UniformClips
from videogn.transform.views import Crops, WholeFrame
from videogn.types import InputError, ShortRead

from .conftest import CountingDecoder


@pytest.mark.parametrize("target_fps", [None, 7, 25.0])
@pytest.mark.parametrize("count", [1, 2, 5, 30, 101])
def test_without_a_hop_the_windows_are_those_of_sliding_clips(
    count: int, target_fps: float | None, rng: np.random.Generator
) -> None:
    timestamps = 3.5 + np.cumsum(rng.uniform(0.02, 0.2, count))
    plan = plan_windows(timestamps, 10.0, UniformClips(4, 3, 10, target_fps=target_fps))
    assert np.array_equal(plan.frames, SlidingClips(4, 3, target_fps=target_fps)(timestamps, rng))


@pytest.mark.parametrize("hop", [1, 4, 12, 40])
def test_a_hop_of_whole_frames_is_that_of_sliding_clips(hop: int, rng: np.random.Generator) -> None:
    timestamps = np.arange(100) / 30
    plan = plan_windows(timestamps, 30.0, UniformClips(4, 3, 10), hop / 30)
    assert np.array_equal(plan.frames, SlidingClips(4, 3, hop=hop)(timestamps, rng))


def test_worked_examples() -> None:
    for hop, frames, starts, ends in (
        (None, [[0, 2], [4, 6], [7, 9]], [0, 0.4, 0.7], [0.4, 0.8, 1.0]),
        (0.25, [[0, 2], [2, 4], [5, 7], [7, 9]], [0, 0.2, 0.5, 0.7], [0.4, 0.6, 0.9, 1.0]),
    ):
        plan = plan_windows(np.arange(10) / 10, 10.0, UniformClips(2, 2, 1), hop)
        assert plan.frames.tolist() == frames
        np.testing.assert_allclose(plan.starts, starts)
        np.testing.assert_allclose(plan.ends, ends)
        assert plan.duration_seconds == pytest.approx(1.0)


@pytest.mark.parametrize("target_fps", [None, 10.0, 37.0])
@pytest.mark.parametrize("hop_seconds", [None, 0.05, 0.3, 2.0])
def test_a_variable_rate_is_timed_by_the_timestamps(
    hop_seconds: float | None, target_fps: float | None, rng: np.random.Generator
) -> None:
    """A window begins with its first frame and lasts until the frame that would come next; one begins every hop seconds."""
    timestamps = np.cumsum(rng.uniform(0.01, 0.3, 60))
    seconds = timestamps - timestamps[0]
    plan = plan_windows(timestamps, 10.0, UniformClips(3, 2, 1, target_fps=target_fps), hop_seconds)
    duration = seconds[-1] + np.median(np.diff(seconds))
    assert plan.duration_seconds == pytest.approx(duration)
    assert (plan.starts[0], plan.ends[-1]) == (0, plan.duration_seconds)
    assert (np.diff(plan.starts) > 0).all()
    assert (np.diff(plan.ends) >= 0).all()
    if target_fps is None:
        assert np.array_equal(plan.starts, seconds[plan.frames[:, 0]])
        following = plan.frames[:-1, -1] + 2
        assert np.array_equal(plan.ends[:-1], np.append(seconds, [plan.duration_seconds] * 9)[following])
    else:
        on_screen = np.searchsorted(seconds, plan.starts + 1e-3, side="right") - 1
        assert np.array_equal(plan.frames[:, 0], on_screen)
        # A window that reaches the last frame ends with the video, of which frames of another rate are no whole number.
        expected = np.minimum(plan.starts + 6 / target_fps, duration)
        np.testing.assert_allclose(plan.ends, expected, atol=0.51 / target_fps)
        assert np.isclose(plan.ends, expected).mean() > 0.6
    if hop_seconds is not None:
        step = np.diff(seconds).max() if target_fps is None else 1 / target_fps
        for number in range(int(plan.starts[-1] / hop_seconds)):
            behind = number * hop_seconds - plan.starts
            assert behind[behind >= -1e-3].min() < step + 1e-3  # a window begins at the frame that is on screen then


@pytest.mark.parametrize("hop", [0.0, -1.0, 1e-9, float("nan"), float("inf")])
def test_a_hop_that_is_none_is_refused(hop: float) -> None:
    with pytest.raises(InputError, match=r"hop: .*: give seconds from one window to the next, at least 0\.001"):
        plan_windows(np.arange(10) / 10, 10.0, UniformClips(2, 2, 1), hop)


@pytest.mark.parametrize("transform", [Crops(16, 20, 1), Crops(16, 20, 3), WholeFrame(20)], ids=["crop", "three", "whole"])
@pytest.mark.parametrize("hop_seconds", [None, 0.3, 2.0])
def test_clips_are_those_of_a_full_decode(
    hop_seconds: float | None, transform: Crops, write_variable: Callable[..., str], rng: np.random.Generator
) -> None:
    milliseconds = np.cumsum(rng.integers(20, 150, 41)).tolist()
    path = write_variable("v.mp4", milliseconds, ("red", 20), ("blue", 21))
    protocol = Protocol(UniformClips(4, 2, 3), transform)
    groups = list(window_groups(path, PyAVDecoder(), protocol, hop_seconds, 3))
    video = PyAVDecoder().open(path)
    frames = [video.frames([index])[0] for index in range(video.num_frames)]
    plan = plan_windows(video.timestamps, video.fps, protocol.sampler, hop_seconds)
    assert [group.first for group in groups] == list(range(0, len(plan.starts), 3))
    clips = torch.cat([group.clips for group in groups])
    expected = [
        transform.cut(np.stack([frames[index] for index in row]), window)
        for row in plan.frames.tolist()
        for window in transform.windows(24, 32)
    ]
    assert torch.equal(clips, torch.stack(expected))


def test_a_video_shorter_than_a_window_is_one_that_loops(write: Callable[..., str]) -> None:
    path = write("v.mp4", ("red", 3))
    (group,) = window_groups(path, PyAVDecoder(), Protocol(UniformClips(4, 2, 3), Crops(16, 20, 1)), None, 8)
    assert group.plan.frames.tolist() == [[0, 2, 1, 0]]
    assert (group.plan.starts.tolist(), group.plan.ends.tolist()) == ([0.0], [pytest.approx(0.3)])


@pytest.mark.turns
@pytest.mark.parametrize("hop_seconds", [None, 0.2, 1.3])
def test_each_frame_is_decoded_once_and_few_at_a_time(
    hop_seconds: float | None, write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that windows share; and however long the video is, a reading is no longer."""
    monkeypatch.setattr(videogn.prediction.windows, "PART_BYTES", 24 * 32 * 3 * 7)
    protocol = Protocol(UniformClips(4, 2, 3), Crops(16, 20, 1))
    for count in (40, 160):
        decoder = CountingDecoder()
        path = write(f"{count}.mp4", ("red", count))
        alive: list[int] = []
        held: list[int] = []
        for group in window_groups(path, decoder, protocol, hop_seconds, 2):
            asked = sum(map(len, decoder.readings))
            alive.append(asked - group.plan.frames[group.first, 0])
            assert len(group.clips) <= 2
            held.append(sum(type(o) is torch.Tensor and o.shape == (16, 16, 3) for o in gc.get_objects()))
        asked = [index for reading in decoder.readings for index in reading]
        assert asked == sorted(set(asked))
        assert set(asked) == set(group.plan.frames.ravel().tolist())
        assert max(map(len, decoder.readings)) == 7
        # Of the frames asked for, none lies further ahead of a window than two windows and a reading.
        assert max(alive) <= 2 * 8 + 7
        assert 0 < max(held) <= 2 * 8 + 7  # nor are more kept
        assert decoder.num_open == 0


def test_a_file_that_recounts_begins_anew(write: Callable[..., str]) -> None:
    path = write("v.mp4", ("red", 20))

    class Short(CountingDecoder):
        def open(self, path: str | Path):
            video = super().open(path)
            frames = video.frames

            def short(indices):
                if video.num_frames == 20 and 10 in indices:
                    video.num_frames, video.timestamps = 12, video.timestamps[:12]
                    raise ShortRead(path, "12 frames decode of the 20 promised")
                return frames(indices)

            video.frames = short
            return video

    protocol = Protocol(UniformClips(2, 1, 3), Crops(16, 20, 1))
    groups = list(window_groups(path, Short(), protocol, None, 2))
    assert groups[-1].plan.frames.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    restart = max(place for place, group in enumerate(groups) if group.first == 0)
    assert sum(len(group.clips) for group in groups[restart:]) == 6
