"""The frames of a clip: the docstrings' examples, and what holds for any video."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogn.sampler.random_clip import RandomClip
from videogn.sampler.uniform_clips import UniformClips

Shape = tuple[int, int, int]
shapes = st.tuples(st.integers(1, 60), st.integers(1, 16), st.integers(1, 8))  # frames, clip length, stride


def times(num_frames: int) -> np.ndarray:
    return np.arange(num_frames) / 25


@pytest.mark.parametrize(("num_frames", "clips"), [(10, {(0, 4, 8), (1, 5, 9)}), (6, {(0, 4, 2)})])
def test_random_clip_example(num_frames: int, clips: set[tuple[int, ...]], rng: np.random.Generator) -> None:
    sampler = RandomClip(3, 4)
    # 64 draws of two equally likely starts miss one with a probability of 2**-63.
    assert {tuple(sampler(times(num_frames), rng)[0].tolist()) for _ in range(64)} == clips


def test_uniform_clips_example(rng: np.random.Generator) -> None:
    assert UniformClips(3, 4, 2)(times(10), rng).tolist() == [[0, 4, 8], [5, 9, 3]]


@given(shapes, st.integers(0, 2**32 - 1))
def test_random_clip_fits_or_loops(shape: Shape, seed: int) -> None:
    num_frames, length, stride = shape
    (clip,) = RandomClip(length, stride)(times(num_frames), np.random.default_rng(seed))
    if num_frames >= (length - 1) * stride + 1:
        assert np.all(np.diff(clip) == stride)
        assert clip[0] >= 0
        assert clip[-1] < num_frames
    else:
        assert clip.tolist() == [i * stride % num_frames for i in range(length)]


@given(shapes, st.integers(1, 12))
def test_uniform_clips_start_evenly_and_wrap(shape: Shape, num_clips: int) -> None:
    num_frames, length, stride = shape
    clips = UniformClips(length, stride, num_clips)(times(num_frames), np.random.default_rng(0))
    expected = [[(k * num_frames // num_clips + i * stride) % num_frames for i in range(length)] for k in range(num_clips)]
    assert clips.tolist() == expected


def test_random_starts_are_uniform(rng: np.random.Generator) -> None:
    """Chi-square over 10 starts: 27.9 is the 0.999 quantile of 9 degrees of freedom."""
    sampler, draws = RandomClip(4, 3), 5000
    starts = np.bincount([int(sampler(times(19), rng)[0, 0]) for _ in range(draws)], minlength=10)
    assert len(starts) == 10
    assert ((starts - draws / 10) ** 2 / (draws / 10)).sum() < 27.9
