"""Multigrid training: clips of fewer frames and pixels, and so many more of them that every step costs the same.

Wu, Girshick, He, Feichtenhofer & Krähenbühl 2020, arXiv:1912.00998; the shapes are those of PySlowFast's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from videogn.number import is_positive
from videogn.types import InputError

MOST_CLIPS = 256  # times as many as of the full shape; the paper's are 16


@dataclass(frozen=True)
class Shape:
    """Of the clips of a batch.

    Attributes:
        clip_length, frame_stride: frames, and frames from one to the next.
        crop_size: pixels.
        short_side: what the lower end of the range of short sides is multiplied with: a smaller crop shows as much of a frame.
        clips: how many times as many as of the full shape.
    """

    clip_length: int
    frame_stride: int
    crop_size: int
    short_side: float
    clips: int


class Multigrid:
    """Which shape of clip each optimiser step has.

    The steps up to each of `cycle_ends` are a long cycle: they are divided evenly among the shapes of `long_cycle`, in order.
    What follows the last one has the full shape. Within either, steps take the sides of `short_cycle` in turn and then the
    full side, none above that of the long cycle. A shape has round(T H W / its own T H W) times as many clips.

        16 frames of 224, cycle_ends [0.5], steps 0 to 9 of 20, without a short cycle: 4 x 158, 8 x 158, 8 x 224 and 16 x 224,
        of 8, 4, 2 and 1 times as many clips; steps 10 to 19: 16 x 224

    Args:
        cycle_ends: shares of the training's steps, above 0 and up to 1, increasing; an empty list for no long cycle.
        long_cycle: a list of pairs, share of the frames and share of the side of each shape.
        short_cycle: shares of the side; an empty list for no short cycle.

    Raises:
        InputError: a value that is none of these.
    """

    def __init__(self, cycle_ends: Any = (), long_cycle: Any = (), short_cycle: Any = ()) -> None:
        if not (_are_shares(cycle_ends) and all(before < after for before, after in pairwise(cycle_ends))):
            raise InputError(f"multigrid.cycle_ends={cycle_ends}; give shares of the steps, above 0 and up to 1, increasing")
        if not (isinstance(long_cycle, Sequence) and all(_are_shares(pair) and len(pair) == 2 for pair in long_cycle)):
            raise InputError(f"multigrid.long_cycle={long_cycle}; give pairs, shares of the frames and of the side, above 0 to 1")
        if not _are_shares(short_cycle):
            raise InputError(f"multigrid.short_cycle={short_cycle}; give shares of the side, above 0 to 1")
        if cycle_ends and not long_cycle:
            raise InputError(f"multigrid.cycle_ends={list(cycle_ends)} without a long_cycle; give its shapes, or no ends")
        self._ends = tuple(cycle_ends)
        self._long = tuple((float(frames), float(side)) for frames, side in long_cycle) if cycle_ends else ()
        self._short = tuple(float(side) for side in short_cycle)

    @property
    def is_on(self) -> bool:
        return bool(self._ends or self._short)

    def plan(self, clip_length: int, frame_stride: int, crop_size: int, total_steps: int) -> Plan:
        """For clips that in full are so large, in a training of so many optimiser steps.

        Raises:
            InputError: a shape so small that a step would have hundreds of times as many clips.
        """
        bounds, shares = [], []
        start = 0
        for end in self._ends:
            stop = round(end * total_steps)
            for place, share in enumerate(self._long, 1):
                bounds.append(start + (stop - start) * place // len(self._long))
                shares.append(share)
            start = stop
        shares.append((1.0, 1.0))

        def shape(frames: float, side: float) -> Shape:
            length, crop = max(1, round(clip_length * frames)), max(1, round(crop_size * side))
            clips = round(clip_length * crop_size**2 / (length * crop**2))
            return Shape(length, frame_stride * (clip_length // length), crop, crop / crop_size, clips)

        turns = [tuple(shape(frames, min(short, side)) for short in (*self._short, 1.0)) for frames, side in shares]
        for found in (shape for turn in turns for shape in turn):
            if found.clips > MOST_CLIPS:
                raise InputError(
                    f"multigrid: clips of {found.clip_length} frames of {found.crop_size} pixels, {found.clips} times as many as "
                    f"of the full shape; give larger shares, for {MOST_CLIPS} times as many at most"
                )
        shapes = tuple(dict.fromkeys([shape(1.0, 1.0), *(shape for turn in turns for shape in turn)]))
        return Plan(tuple(bounds), tuple(tuple(shapes.index(shape) for shape in turn) for turn in turns), shapes)


@dataclass(frozen=True)
class Plan:
    """The shapes of a training's steps.

    Attributes:
        bounds: the steps at which the next turn begins, of all turns but the first.
        turns: for the steps from one bound to the next, places in `shapes` that they take in turn.
        shapes: those there are, the full one first.
    """

    bounds: tuple[int, ...]
    turns: tuple[tuple[int, ...], ...]
    shapes: tuple[Shape, ...]

    def place(self, step: int) -> int:
        """In `shapes`, of an optimiser step."""
        turn = self._turn(step)
        return turn[step % len(turn)]

    def lr_factor(self, step: int) -> float:
        """As the clips of the long cycle's shape, in proportion; the short cycle leaves the lr as it is, as in the paper."""
        return float(self.shapes[self._turn(step)[-1]].clips)

    def _turn(self, step: int) -> tuple[int, ...]:
        return self.turns[sum(step >= bound for bound in self.bounds)]

    def __str__(self) -> str:
        """`8 shapes of clips, 4 x 32 (16 times as many) to 8 x 64 frames x pixels`."""
        by_clips = sorted(self.shapes, key=lambda shape: shape.clips)
        most, fewest = by_clips[-1], by_clips[0]
        return (
            f"{len(self.shapes)} shapes of clips, {most.clip_length} x {most.crop_size} ({most.clips} times as many) to "
            f"{fewest.clip_length} x {fewest.crop_size} frames x pixels"
        )


def _are_shares(values: Any) -> bool:
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    return is_list and all(is_positive(value, high=1) for value in values)
