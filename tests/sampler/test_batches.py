"""Which clip comes when: no clip twice, none lost, the same for any number of ranks, and a place that can be kept."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogn.sampler.batches import EpochBatches
from videogn.types import ClipKey, InputError


def take(batches: EpochBatches, count: int) -> list[list[ClipKey]]:
    """`count` batches as training takes them, across epochs."""
    taken: list[list[ClipKey]] = []
    while len(taken) < count:
        for batch in batches:
            batches.advance()
            taken.append(batch)
            if len(taken) == count:
                break
    return taken


@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 5))
def test_ranks_divide_the_batches_of_one(num_videos: int, clips: int, per_rank: int, num_ranks: int, seed: int) -> None:
    if num_videos * clips < per_rank * num_ranks:
        with pytest.raises(InputError, match=rf"batch_size={per_rank}.*lower batch_size or add videos"):
            EpochBatches(num_videos, per_rank, seed, clips, 0, num_ranks)
        return
    single = EpochBatches(num_videos, per_rank * num_ranks, seed, clips)
    ranks = [EpochBatches(num_videos, per_rank, seed, clips, rank, num_ranks) for rank in range(num_ranks)]
    whole = list(single)
    parts = [list(rank) for rank in ranks]
    assert len(single) == len(whole) == len(ranks[0])
    assert [[key for part in parts for key in part[i]] for i in range(len(whole))] == whole
    keys = [key for batch in whole for key in batch]
    assert len(set(keys)) == len(keys)
    videos = [key.video for key in keys]
    assert videos[::clips] == list(dict.fromkeys(videos))  # a video's clips follow each other
    assert {key.epoch for key in keys} == {0}
    assert all(0 <= key.video < num_videos and 0 <= key.clip < clips for key in keys)
    assert num_videos * clips - len(keys) < per_rank * num_ranks  # no more is left out than the incomplete batch


@given(st.integers(0, 14))
def test_a_resumed_place_replays_nothing_and_skips_nothing(stop: int) -> None:
    expected = take(EpochBatches(11, 2, seed=3), 15)  # three epochs of five
    first = EpochBatches(11, 2, seed=3)
    before = take(first, stop)
    resumed = EpochBatches(11, 2, seed=3)
    resumed.load_state_dict(first.state_dict())
    assert before + take(resumed, 15 - stop) == expected


def test_batches_fetched_ahead_are_not_counted() -> None:
    batches = EpochBatches(10, 2, seed=0)
    fetched = list(batches)
    batches.advance()
    assert list(batches) == fetched[1:]


def test_epochs_and_seeds_differ() -> None:
    batches = EpochBatches(32, 32, seed=0)
    one, two = take(batches, 2)
    (other,) = take(EpochBatches(32, 32, seed=1), 1)
    orders = [[key.video for key in keys] for keys in (one, two, other)]
    assert {key.epoch for key in two} == {1}
    # Two of 32! orders agree by chance with a probability below 1e-35.
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((11, 2, 0), "num_videos"), ((10, 1, 0), "global_batch_size"), ((10, 2, 1), "seed"), ((10, 2, 0, 2), "clips_per_video")],
)
def test_another_shape_is_refused(arguments: tuple[int, ...], name: str) -> None:
    state = EpochBatches(10, 2, 0).state_dict()
    with pytest.raises(InputError, match=f"resume: {name} was"):
        EpochBatches(*arguments).load_state_dict(state)


def test_more_ranks_at_the_same_global_batch_go_on() -> None:
    first = EpochBatches(20, 4, seed=0)
    take(first, 2)
    second = [EpochBatches(20, 2, 0, 1, rank, 2) for rank in range(2)]
    for rank in second:
        rank.load_state_dict(first.state_dict())
    assert [a + b for a, b in zip(*second, strict=True)] == list(first)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(1, 3), st.integers(0, 3))
def test_balanced_classes_come_equally_often(labels: list[int], clips: int, seed: int) -> None:
    batches = EpochBatches(len(labels), 1, seed, clips, labels=np.array(labels))
    keys = [key for batch in batches for key in batch]
    assert len(keys) == len(labels) * clips
    assert len(set(keys)) == len(keys)
    draws = Counter(labels[key.video] for key in keys[::clips])
    assert max(draws.values()) - min(draws[label] for label in set(labels)) <= 1
    for label in set(labels):  # the videos of a class in turn: none twice before each once
        times = Counter(key.video for key in keys[::clips] if labels[key.video] == label)
        videos = [row for row, other in enumerate(labels) if other == label]
        assert max(times[row] for row in videos) - min(times[row] for row in videos) <= 1


def test_a_balanced_epoch_is_another_each_time_and_the_same_again() -> None:
    labels = np.array([0] * 9 + [1] * 3)
    first, second = (take(EpochBatches(12, 4, 0, labels=labels), 6) for _ in range(2))
    assert first == second
    assert [key.video for batch in first[:3] for key in batch] != [key.video for batch in first[3:] for key in batch]
    with pytest.raises(InputError, match="resume: class_balanced was 1 when the checkpoint was written and is 0 now"):
        EpochBatches(12, 4, 0).load_state_dict(EpochBatches(12, 4, 0, labels=labels).state_dict())


@given(
    st.lists(st.integers(0, 4), min_size=4, max_size=60),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_batches_of_a_kind(kinds: list[int], size: int, ranks: int, clips: int, seed: int) -> None:
    """No clip twice, and no more steps of several kinds than there are places where one kind ends and another begins."""
    if len(kinds) * clips < size * ranks:
        return
    found = [list(EpochBatches(len(kinds), size, seed, clips, rank, ranks, kinds=np.array(kinds))) for rank in range(ranks)]
    steps = [[key for batch in parts for key in batch] for parts in zip(*found, strict=True)]
    assert len(steps) == len(kinds) * clips // (size * ranks)
    keys = [key for step in steps for key in step]
    assert len(set(keys)) == len(keys) == len(steps) * size * ranks
    assert sum(len({kinds[key.video] for key in step}) - 1 for step in steps) <= len(set(kinds)) - 1


def test_steps_of_a_kind_come_in_any_order() -> None:
    kinds = np.repeat(np.arange(4), 8)
    batches = EpochBatches(32, 4, 0, kinds=kinds)
    orders = [[int(kinds[batch[0].video]) for batch in batches] for _ in range(2) if take(batches, 0) == []]
    assert sorted(orders[0]) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert orders[0] != sorted(orders[0])
    assert orders[0] == [int(kinds[batch[0].video]) for batch in EpochBatches(32, 4, 0, kinds=kinds)]
    with pytest.raises(InputError, match="resume: alike was 1 when the checkpoint was written and is 0 now"):
        EpochBatches(32, 4, 0).load_state_dict(batches.state_dict())


def test_the_first_batches_come_again_and_again() -> None:
    """With the clips of epoch 0, and on each rank its part of them."""
    whole = list(EpochBatches(12, 2, 0))
    sampler = EpochBatches(12, 2, 0, first=2)
    assert len(sampler) == 2
    for _ in range(3):
        taken = []
        for batch in sampler:
            sampler.advance()
            taken.append(batch)
        assert taken == whole[:2]
    assert sampler.epoch == 2
    assert len(EpochBatches(12, 2, 0, first=100)) == 6
    ranks = [list(EpochBatches(12, 1, 0, rank=rank, num_ranks=2, first=2)) for rank in range(2)]
    assert [one + other for one, other in zip(*ranks, strict=True)] == whole[:2]
