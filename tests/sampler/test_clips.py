"""The frames of a clip: the docstrings' examples, and what holds for any video."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogn.sampler.random_clip import RandomClip
from videogn.sampler.sliding_clips import SlidingClips
from videogn.sampler.spread_clips import SpreadClips
from videogn.sampler.uniform_clips import UniformClips
from videogn.types import InputError

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


def test_sliding_clips_examples(rng: np.random.Generator) -> None:
    assert SlidingClips(3, 1)(times(10), rng).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [7, 8, 9]]
    assert SlidingClips(3, 2)(times(10), rng).tolist() == [[0, 2, 4], [5, 7, 9]]
    assert SlidingClips(3, 2)(times(4), rng).tolist() == [[0, 2, 0]]
    assert SlidingClips(3, 1, hop=3)(times(9), rng).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]  # no clip twice
    assert SlidingClips(2, 1, target_fps=5)(times(25), rng).tolist() == [[0, 5], [10, 15], [15, 20]]


@given(shapes, st.integers(1, 60))
def test_sliding_clips_cover_the_video(shape: Shape, hop: int) -> None:
    num_frames, length, stride = shape
    clips = SlidingClips(length, stride, hop)(times(num_frames), np.random.default_rng(0))
    span = (length - 1) * stride + 1
    if num_frames <= span:
        assert clips.tolist() == [[i * stride % num_frames for i in range(length)]]
        return
    assert np.all(np.diff(clips) == stride)
    starts = clips[:, 0]
    assert starts[0] == 0
    assert clips[-1, -1] == num_frames - 1
    assert np.all(np.diff(starts)[:-1] == hop)
    assert 0 < starts[-1] - starts[-2] <= hop
    if hop <= length * stride:  # a clip begins no later than where the one before it would go on
        assert np.all(clips[1:, 0] <= clips[:-1, -1] + stride)


@pytest.mark.parametrize("hop", [0, -1, True, 2**21])
def test_no_such_hop(hop: Any) -> None:
    with pytest.raises(InputError, match=f"hop={hop}; give a whole number of frames"):
        SlidingClips(4, 2, hop)


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


@pytest.mark.parametrize(
    ("settings", "clips"),
    [
        ((3, 2, 2), [[0, 2, 4], [5, 7, 9]]),
        ((3, 4, 3), [[0, 4, 8], [0, 4, 8], [1, 5, 9]]),
        ((3, 2, 1), [[2, 4, 6]]),
        ((4, 4, 2), [[0, 4, 8, 2]] * 2),
    ],
)
def test_spread_clips_examples(settings: Shape, clips: list[list[int]], rng: np.random.Generator) -> None:
    assert SpreadClips(*settings)(times(10), rng).tolist() == clips


@given(shapes, st.integers(2, 12))
def test_spread_clips_reach_both_ends_and_never_wrap_where_they_fit(shape: Shape, num_clips: int) -> None:
    num_frames, length, stride = shape
    clips = SpreadClips(length, stride, num_clips)(times(num_frames), np.random.default_rng(0))
    span = (length - 1) * stride + 1
    assert clips[0, 0] == 0
    if span <= num_frames:
        assert np.all(np.diff(clips, axis=1) == stride)
        assert clips[-1, -1] == num_frames - 1
        gaps = np.diff(clips[:, 0])
        assert gaps.min() >= 0
        assert gaps.max() - gaps.min() <= 1


def test_temporal_jitter_example(rng: np.random.Generator) -> None:
    # 36 and 16 clips of the two starts 0 and 1; a clip of start 1 is missed 3000 times with a probability of 1e-40.
    clips = {tuple(RandomClip(3, 4, True)(times(10), rng)[0].tolist()) for _ in range(3000)}
    from_0 = {(a, b, c) for a in range(4) for b in range(4, 8) for c in (8, 9)}
    from_1 = {(a, b, 9) for a in range(1, 5) for b in range(5, 9)}
    assert clips == from_0 | from_1


@given(shapes, st.integers(0, 2**32 - 1))
def test_jittered_frames_stay_in_their_places_and_increase(shape: Shape, seed: int) -> None:
    num_frames, length, stride = shape
    (plain,) = RandomClip(length, stride)(times(num_frames), np.random.default_rng(seed))
    (clip,) = RandomClip(length, stride, True)(times(num_frames), np.random.default_rng(seed))
    (again,) = RandomClip(length, stride, True)(times(num_frames), np.random.default_rng(seed))
    assert np.array_equal(clip, again)
    assert (clip >= 0).all()
    assert (clip < num_frames).all()
    if num_frames >= (length - 1) * stride + 1:
        # The start is the one without jitter, drawn first.
        assert ((clip - plain >= 0) & (clip - plain < stride)).all()
        assert (np.diff(clip) > 0).all()
    else:
        assert ((clip - plain) % num_frames < stride).all()


def test_jitter_is_uniform() -> None:
    """Chi-square over 5 offsets: 18.5 is the 0.999 quantile of 4 degrees of freedom."""
    draws = 3000
    clips = [
        [RandomClip(2, 5, jitter)(times(1000), np.random.default_rng(s))[0] for jitter in (False, True)] for s in range(draws)
    ]
    offsets = np.array([jittered - plain for plain, jittered in clips])
    for frame in range(2):
        counts = np.bincount(offsets[:, frame], minlength=5)
        assert len(counts) == 5
        assert ((counts - draws / 5) ** 2 / (draws / 5)).sum() < 18.5
    # Each frame on its own: of the same offset in a fifth of the clips.
    assert abs((offsets[:, 0] == offsets[:, 1]).mean() - 0.2) < 4 * (0.2 * 0.8 / draws) ** 0.5
