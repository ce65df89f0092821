"""How fast several ways to run the same clips are: in turn, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from videogn.export.runtime import Runtime

THREADS, BATCHES = (1, 2), (1, 8)
# Runs of a batch: at least, at most, and the seconds of each way after which no more are begun.
MIN_RUNS, MAX_RUNS, SECONDS = 3, 30, 3.0


@dataclass(frozen=True)
class Way:
    """A way to run clips.

    Attributes:
        opened: with a number of threads, in a process of its own.
        taken: uint8 clips (N, T, H, W, 3) as it takes them.
    """

    opened: Callable[[int], Runtime]
    taken: Callable[[Tensor], np.ndarray]


def in_turn(
    ways: Mapping[str, Way], frames: UInt8[Tensor, "N T H W 3"], batches: Sequence[int] = BATCHES
) -> list[dict[str, Any]]:
    """Milliseconds and peak memory of each way, with one thread and two: A B A B.

    Returns:
        One entry for each way, number of threads and batch: `way`, `threads`, `batch`, `milliseconds` (median), `low` and
        `high` (the quarter and three quarter points), `runs`, and `peak_bytes`, the largest resident size of the process until
        then.
    """
    return [entry for threads in THREADS for entry in _with_threads(ways, frames, batches, threads)]


def _with_threads(ways: Mapping[str, Way], frames: Tensor, batches: Sequence[int], threads: int) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        running = {name: stack.enter_context(way.opened(threads)) for name, way in ways.items()}
        for batch in batches:
            clips = frames[torch.arange(batch) % len(frames)]
            given = {name: way.taken(clips) for name, way in ways.items()}
            for name, runtime in running.items():
                runtime.seconds(given[name], 1)  # warm
            taken: dict[str, list[float]] = {name: [] for name in ways}
            runs = 0
            while runs < MIN_RUNS or (runs < MAX_RUNS and sum(map(sum, taken.values())) < SECONDS * len(ways)):
                for name, runtime in running.items():
                    taken[name] += runtime.seconds(given[name], 1)
                runs += 1
            for name, seconds in taken.items():
                low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
                yield {
                    "way": name,
                    "threads": threads,
                    "batch": batch,
                    "milliseconds": 1000 * float(middle),
                    "low": 1000 * float(low),
                    "high": 1000 * float(high),
                    "runs": runs,
                    "peak_bytes": running[name].peak_bytes(),
                }
