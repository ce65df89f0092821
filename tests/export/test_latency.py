"""Ways to run the same clips take turns, each with what it takes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from videogn.export.latency import MIN_RUNS, Way, in_turn


@dataclass
class Clock:
    """In place of a process: says how long a run took, and notes who ran what."""

    name: str
    seconds_of_run: list[float]
    log: list[tuple[str, int]]
    open_now: set[str]
    given: list[np.ndarray] = field(default_factory=list)

    def __enter__(self) -> Clock:
        self.open_now.add(self.name)
        return self

    def __exit__(self, *_: object) -> None:
        self.open_now.remove(self.name)

    def seconds(self, clips: np.ndarray, repeats: int) -> list[float]:
        assert repeats == 1
        self.log.append((self.name, len(clips)))
        self.given.append(clips)
        return [self.seconds_of_run[(len(self.given) - 1) % len(self.seconds_of_run)]]

    def peak_bytes(self) -> int:
        return 1000 + len(self.name)


def test_ways_take_turns() -> None:
    log: list[tuple[str, int]] = []
    open_now: set[str] = set()
    clocks: dict[tuple[str, int], Clock] = {}

    def way(name: str, seconds_of_run: list[float], factor: int) -> Way:
        def opened(threads: int) -> Clock:
            clocks[name, threads] = Clock(name, seconds_of_run, log, open_now)
            return clocks[name, threads]

        return Way(opened, lambda frames: factor * frames.numpy())  # pyright: ignore[reportArgumentType]

    frames = torch.arange(3, dtype=torch.uint8).reshape(3, 1, 1, 1, 1).expand(3, 1, 1, 1, 3)
    # The first run warms up, the next three count: 5, 7 and 9 seconds, beside a way of 3.
    ways = {"a": way("a", [1000, 5, 9, 7], 1), "b": way("b", [3], 2)}
    entries = in_turn(ways, frames, (1, 4))
    turns = [(name, batch) for batch in (1, 4) for _ in range(1 + MIN_RUNS) for name in ("a", "b")]
    assert log == 2 * turns  # with one thread and with two
    assert open_now == set()
    for (name, _), clock in clocks.items():
        factor = {"a": 1, "b": 2}[name]
        assert [clips[:, 0, 0, 0, 0].tolist() for clips in clock.given[:: 1 + MIN_RUNS]] == [[0], [0, factor, 2 * factor, 0]]
    assert [(entry["way"], entry["threads"], entry["batch"]) for entry in entries] == [
        (name, threads, batch) for threads in (1, 2) for batch in (1, 4) for name in ("a", "b")
    ]
    assert {(entry["way"], entry["low"], entry["milliseconds"], entry["high"], entry["runs"]) for entry in entries} == {
        ("a", 6000.0, 7000.0, 8000.0, 3),
        ("b", 3000.0, 3000.0, 3000.0, 3),
    }
    assert {entry["peak_bytes"] for entry in entries} == {1001}


def test_a_fast_way_runs_as_often_as_the_slow_one_allows() -> None:
    """Three seconds for each way: 0.4 and 0.1 seconds fit 12 times into 6."""
    log: list[tuple[str, int]] = []
    ways = {
        name: Way(lambda _, name=name, each=each: Clock(name, [each], log, set()), lambda frames: frames.numpy())  # pyright: ignore
        for name, each in {"a": 0.4, "b": 0.1}.items()
    }
    entries = in_turn(ways, torch.zeros(1, 1, 1, 1, 3, dtype=torch.uint8), (1,))
    assert {entry["runs"] for entry in entries} == {12}
    ways = {"a": Way(lambda _: Clock("a", [0.001], log, set()), lambda frames: frames.numpy())}  # pyright: ignore
    assert {entry["runs"] for entry in in_turn(ways, torch.zeros(1, 1, 1, 1, 3, dtype=torch.uint8), (1,))} == {30}
