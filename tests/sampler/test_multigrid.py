"""The shape of every step: those of the paper, at one cost, and the same clips for any number of ranks."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogn.sampler.batches import EpochBatches
from videogn.sampler.multigrid import Multigrid, Plan
from videogn.types import ClipKey, InputError

HALF = math.sqrt(0.5)
LONG = ((0.25, HALF), (0.5, HALF), (0.5, 1), (1, 1))
SHORT = (0.5, HALF)


def shapes_of(plan: Plan, steps: range) -> list[tuple[int, int, int, int]]:
    found = [plan.shapes[plan.place(step)] for step in steps]
    return [(s.clips, s.clip_length, s.frame_stride, s.crop_size) for s in found]


def test_the_long_cycle_is_the_papers() -> None:
    """8, 4, 2 and 1 times as many clips of 4, 8, 8 and 16 frames over the same time; twice, and the full rest."""
    plan = Multigrid([0.4, 0.8], LONG).plan(16, 2, 224, 100)
    cycle = [(8, 4, 8, 158), (4, 8, 4, 158), (2, 8, 4, 224), (1, 16, 2, 224)]
    expected = [shape for shape in cycle for _ in range(10)]
    assert shapes_of(plan, range(100)) == [*expected, *expected, *[cycle[-1]] * 20]
    assert [plan.lr_factor(step) for step in range(0, 100, 10)] == [8, 4, 2, 1, 8, 4, 2, 1, 1, 1]


def test_the_short_cycle_is_the_papers() -> None:
    """Side 112, 158 and 224 in turn, of 4, 2 and 1 times as many clips; and the lr stays."""
    plan = Multigrid(short_cycle=SHORT).plan(16, 2, 224, 7)
    turn = [(4, 16, 2, 112), (2, 16, 2, 158), (1, 16, 2, 224)]
    assert shapes_of(plan, range(7)) == [*turn, *turn, turn[0]]
    assert [plan.lr_factor(step) for step in range(7)] == [1] * 7


def test_in_both_no_side_is_above_the_long_cycles() -> None:
    plan = Multigrid([1.0], LONG, SHORT).plan(16, 2, 224, 12)
    assert [(clips, length, side) for clips, length, _, side in shapes_of(plan, range(12))] == [
        *((16, 4, 112), (8, 4, 158), (8, 4, 158)),
        *((8, 8, 112), (4, 8, 158), (4, 8, 158)),
        *((8, 8, 112), (4, 8, 158), (2, 8, 224)),
        *((4, 16, 112), (2, 16, 158), (1, 16, 224)),
    ]
    assert [plan.lr_factor(step) for step in range(0, 12, 3)] == [8, 4, 2, 1]
    assert str(plan) == "8 shapes of clips, 4 x 112 (16 times as many) to 16 x 224 frames x pixels"


@given(
    st.integers(8, 64),
    st.integers(1, 8),
    st.integers(64, 256),
    st.integers(1, 400),
    st.lists(st.integers(1, 20), max_size=3, unique=True).map(sorted),
)
def test_every_step_costs_the_same(length: int, stride: int, crop: int, total: int, ends: list[int]) -> None:
    """To the rounding of frames, pixels and clips; and shapes of a cycle have as many steps each, to one."""
    plan = Multigrid([end / 20 for end in ends], LONG, SHORT).plan(length, stride, crop, total)
    full = length * crop**2
    counted: Counter[int] = Counter()
    for step in range(total):
        shape = plan.shapes[plan.place(step)]
        clip = shape.clip_length * shape.crop_size**2
        assert abs(shape.clips * clip - full) <= clip / 2  # to half a clip
        assert shape.clip_length * shape.frame_stride <= length * stride
        counted[sum(step >= bound for bound in plan.bounds)] += 1
    start = 0
    for cycle, end in enumerate(ends):
        stop = round(end / 20 * total)
        counts = [counted[4 * cycle + place] for place in range(4)]
        assert sum(counts) == stop - start
        assert max(counts) - min(counts) <= 1
        start = stop
    assert (plan.shapes[0].clip_length, plan.shapes[0].crop_size, plan.shapes[0].clips) == (length, crop, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cycle_ends": [0.5, 0.4]}, r"cycle_ends=\[0.5, 0.4\]; give shares of the steps, above 0 and up to 1, increasing"),
        ({"cycle_ends": [0]}, r"cycle_ends=\[0\]; give shares"),
        ({"cycle_ends": [1.5]}, r"cycle_ends=\[1.5\]; give shares"),
        ({"cycle_ends": 0.5}, r"cycle_ends=0.5; give shares"),
        ({"cycle_ends": "12"}, r"cycle_ends=12; give shares"),
        ({"long_cycle": [[0.5]]}, r"long_cycle=\[\[0.5\]\]; give pairs"),
        ({"long_cycle": [[0.5, 0]]}, r"long_cycle=\[\[0.5, 0\]\]; give pairs"),
        ({"long_cycle": 3}, r"long_cycle=3; give pairs"),
        ({"short_cycle": [True]}, r"short_cycle=\[True\]; give shares of the side"),
        ({"short_cycle": [math.nan]}, r"short_cycle=\[nan\]; give shares of the side"),
        ({"cycle_ends": [0.5], "long_cycle": []}, r"cycle_ends=\[0.5\] without a long_cycle"),
    ],
)
def test_bad_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Multigrid(**{"long_cycle": LONG, **values})


def test_a_shape_of_next_to_nothing() -> None:
    with pytest.raises(InputError, match="clips of 8 frames of 1 pixels, 4096 times as many as of the full shape; give larger"):
        Multigrid(short_cycle=[0.001]).plan(8, 2, 64, 10)


def shapes(epoch: int, batch: int) -> tuple[int, int]:
    return ((1, 4), (2, 3), (0, 1))[(7 * epoch + batch) % 3]


def epochs(num_ranks: int, rank: int, per_rank: int, count: int) -> list[list[ClipKey]]:
    batches = EpochBatches(15, per_rank, 3, 2, rank, num_ranks, shapes=shapes)
    taken = []
    for _ in range(count):
        for batch in batches:
            batches.advance()
            taken.append(batch)
    return taken


def test_an_epoch_has_as_many_batches_and_goes_through_the_videos_again_and_again() -> None:
    taken = epochs(1, 0, 4, 2)
    assert len(taken) == 2 * len(EpochBatches(15, 4, 3, 2)) == 14
    assert [len(batch) for batch in taken] == [4 * shapes(place // 7, place % 7)[1] for place in range(14)]
    assert all({key.shape for key in batch} == {shapes(place // 7, place % 7)[0]} for place, batch in enumerate(taken))
    for epoch in range(2):
        keys = [key for batch in taken[7 * epoch : 7 * epoch + 7] for key in batch]
        named = [(key.epoch, key.video, key.clip) for key in keys]
        assert len(set(named)) == len(named)
        assert {key.epoch for key in keys} == {epoch}
        # As often as any other, to one draw of two clips.
        often = Counter(key.video for key in keys)
        assert len(often) == 15
        assert max(often.values()) - min(often.values()) <= 2
        videos = [key.video for key in keys]
        assert videos[:30] != videos[30:60], "each time in another order"
        # The clips of a video in an epoch are numbered through.
        assert all({k.clip for k in keys if k.video == video} == set(range(times)) for video, times in often.items())
    plain = [key for batch in EpochBatches(15, 4, 3, 2) for key in batch]
    assert [key[:3] for key in [k for batch in taken for k in batch][: len(plain)]] == [key[:3] for key in plain]


def test_classes_come_equally_often_in_every_shape() -> None:
    labels = np.array([0] * 12 + [1] * 3)
    batches = EpochBatches(15, 5, 3, labels=labels, shapes=lambda epoch, batch: (0, 6))
    keys = [key for batch in batches for key in batch]
    assert len(keys) == len(set(keys)) == 3 * 30
    often = Counter(labels[key.video] for key in keys)
    assert abs(often[0] - often[1]) <= 6  # to one in each of six rounds of 15 draws
    for video in range(15):
        clips = sorted(key.clip for key in keys if key.video == video)
        assert clips == list(range(len(clips)))


def test_ranks_divide_the_batches_of_one_in_every_shape() -> None:
    one, ranks = epochs(1, 0, 4, 2), [epochs(2, rank, 2, 2) for rank in range(2)]
    assert [[*a, *b] for a, b in zip(*ranks, strict=True)] == one


@pytest.mark.parametrize("stop", range(14))
def test_a_resumed_place_replays_nothing_and_skips_nothing(stop: int) -> None:
    expected = epochs(1, 0, 4, 2)
    batches = EpochBatches(15, 4, 3, 2, shapes=shapes)
    batches.load_state_dict({**batches.state_dict(), "epoch": stop // 7, "consumed": stop % 7})
    rest = list(batches)
    assert rest == expected[stop : 7 * (stop // 7) + 7]


def test_a_checkpoint_of_one_shape_is_no_place_among_several() -> None:
    state = EpochBatches(15, 4, 3, 2).state_dict()
    with pytest.raises(InputError, match="multigrid was 0 when the checkpoint was written and is 1 now"):
        EpochBatches(15, 4, 3, 2, shapes=shapes).load_state_dict(state)
