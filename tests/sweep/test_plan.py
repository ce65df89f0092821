"""The search for the largest batch, and what is recommended."""

from __future__ import annotations

import pytest

from videogn.sweep.plan import Choice, Room, accumulated_batches, largest_batch, recommended


@pytest.mark.parametrize("largest", [0, 1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("guess", [-5, 0, 1, 2, 6, 7, 8, 63, 500, 2000])
def test_finds_the_largest_batch_from_any_guess(largest: int, guess: int) -> None:
    asked: list[int] = []

    def holds(batch_size: int) -> bool:
        assert batch_size >= 1
        asked.append(batch_size)
        return batch_size <= largest

    assert largest_batch(holds, guess) == largest
    assert len(asked) == len(set(asked))
    # Twice at the right guess; from elsewhere it doubles its strides, then halves them.
    assert len(asked) <= 2 + 2 * abs(max(1, guess) - largest).bit_length()


def test_a_room_is_full_with_what_it_holds() -> None:
    room = Room(memory=1000, reserve=100, fragmentation=0.5)
    assert room.needed(600) == 1000
    assert room.holds(600)
    assert not room.holds(601)


def choice(norm: str, batch_size: int, clips_together: int | None) -> Choice:
    return Choice(32, norm, batch_size, clips_together)


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ([choice("batch_norm", 8, 8), choice("group_norm", 8, None)], "batch_norm"),
        ([choice("batch_norm", 7, 7), choice("group_norm", 7, None)], "group_norm"),
        ([choice("batch_norm", 9, 9), choice("group_norm", 0, None)], "batch_norm"),
        ([choice("sync_batch_norm", 2, 16), choice("group_norm", 2, None)], "sync_batch_norm"),
        ([choice("group_norm", 1, None), choice("batch_norm", 64, 64)], "group_norm"),
        ([choice("batch_norm", 4, 4)], None),
        ([choice("group_norm", 0, None)], None),
    ],
)
def test_recommends_the_first_whose_statistics_are_of_enough_clips(choices: list[Choice], expected: str | None) -> None:
    best = recommended(choices)
    assert (best and best.norm) == expected


@pytest.mark.parametrize(("clips", "base"), [(1, 64), (17, 64), (32, 64), (63, 64), (64, 64), (137, 64), (3, 1)])
def test_accumulates_until_the_base_batch_is_reached(clips: int, base: int) -> None:
    batches = accumulated_batches(clips, base)
    assert batches * clips >= base
    assert (batches - 1) * clips < base
