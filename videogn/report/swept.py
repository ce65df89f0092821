"""The jobs of a sweep put in order: what varies, which jobs repeat each other, and what each quantity is over what varies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videogn.evaluation.replicates import Summary, summary
from videogn.identity import is_volatile

# What repeats a training in place of changing it.
REPEATS = ("seed", "dataset.split_seed")
# What a line is called by, if it is told by one of them.
_NAMES = ("norm", "conv", "model", "dataset")
# What a figure has on its axis, the first of them that varies.
AXES = ("batch_size", "clip_length", "norm.num_groups", "norm.channels_per_group", "base_lr", "optimizer.lr", "epochs")


@dataclass(frozen=True)
class SweptJob:
    """One job.

    Attributes:
        identity: the name of its folder.
        values: KEY: VALUE of its command line.
        state: done, running, failed, interrupted or missing.
        result: result.json, if it is done.
        validation: the last `val/top1` and `val/loss` of its metrics.csv, by name.
        message: of its failure.
    """

    identity: str
    values: Mapping[str, str]
    state: str
    result: Mapping[str, Any] | None
    validation: Mapping[str, float]
    message: str = ""

    @property
    def is_done(self) -> bool:
        return self.result is not None

    def metric(self, name: str) -> float | None:
        """Of the first protocol."""
        return None if self.result is None else self.result["results"][0]["metrics"].get(name)


@dataclass(frozen=True)
class Quantity:
    """A figure of a job: its name, its unit, how it is read and whether less is better."""

    name: str
    unit: str
    read: Callable[[SweptJob], float | None]

    @property
    def title(self) -> str:
        return f"{self.name}, {self.unit}" if self.unit else self.name


def _error(job: SweptJob) -> float | None:
    top1 = job.metric("top1")
    return None if top1 is None else 100 * (1 - top1)


def _timing(name: str) -> Callable[[SweptJob], float | None]:
    return lambda job: (job.result or {}).get("timing", {}).get(name)


def _memory(job: SweptJob) -> float | None:
    peak = (job.result or {}).get("peak_memory_bytes")
    return None if peak is None else peak / 2**20


ERROR = Quantity("Top-1 error", "%", _error)
QUANTITIES = (
    ERROR,
    Quantity("Loss", "", lambda job: job.metric("loss")),
    Quantity("Top-1 on val, last epoch", "%", lambda job: 100 * job.validation["top1"] if "top1" in job.validation else None),
    Quantity("Loss on val, last epoch", "", lambda job: job.validation.get("loss")),
    Quantity("Peak memory", "MiB", _memory),
    Quantity("Time", "s", _timing("total_seconds")),
    Quantity("Training", "clips/s", _timing("train_clips_per_second")),
)


@dataclass(frozen=True)
class Grid:
    """Jobs over one axis.

    Attributes:
        axis: the key; "" where only the series differ.
        places: its values, in order.
        series: name of a line: place: the jobs there, which repeat each other.
    """

    axis: str
    places: tuple[str, ...]
    series: Mapping[str, Mapping[str, Sequence[SweptJob]]]

    def summaries(self, quantity: Quantity) -> dict[str, dict[str, Summary]]:
        """Of every line and place that has done jobs with this quantity."""
        found: dict[str, dict[str, Summary]] = {}
        for name, places in self.series.items():
            for place, jobs in places.items():
                values = [value for job in jobs if job.is_done and (value := quantity.read(job)) is not None]
                if values:
                    found.setdefault(name, {})[place] = summary(values)
        return found


def grids(jobs: Sequence[SweptJob]) -> list[Grid]:
    """The jobs over the first axis that they vary, those without a value of it over the next, and the rest without an axis."""
    rest = current(jobs)
    found = []
    for axis in AXES:
        here = [job for job in rest if axis in job.values]
        others = [key for key in varying(here) if key != axis]
        # base_lr that follows the norm is no axis: no line would have two places.
        lines: dict[tuple[str | None, ...], set[str]] = {}
        for job in here:
            lines.setdefault(tuple(job.values.get(key) for key in others), set()).add(job.values[axis])
        if any(len(places) > 1 for places in lines.values()):
            found.append(_grid(axis, here, telling(here, others)))
            rest = [job for job in rest if axis not in job.values]
    if rest:
        found.append(_grid("", rest, telling(rest, varying(rest))))
    return found


def current(jobs: Sequence[SweptJob]) -> list[SweptJob]:
    """Of those whose words say the same training the last: the others are of older data, versions or configurations."""
    return list({frozenset((k, v) for k, v in job.values.items() if not is_volatile(k)): job for job in jobs}.values())


def varying(jobs: Sequence[SweptJob]) -> list[str]:
    """The keys that are not the same in all jobs, but those that repeat a training or say where it runs."""
    keys = dict.fromkeys(key for job in jobs for key in job.values)
    return [key for key in keys if key not in REPEATS and not is_volatile(key) and len({job.values.get(key) for job in jobs}) > 1]


def telling(jobs: Sequence[SweptJob], keys: Sequence[str]) -> list[str]:
    """As few of the keys as tell the jobs apart that all of them tell apart; names stay longest, and the norm of them."""
    kept = list(keys)
    lasting = [*_NAMES, "clip_length"]

    def rank(key: str) -> tuple[int, bool]:
        """Of those that go, the first has the lowest."""
        is_number = all(_number(job.values.get(key)) is not None for job in jobs)
        return (len(lasting) - lasting.index(key) if key in lasting else 0, not is_number)

    def groups(keys: Iterable[str]) -> int:
        return len({tuple(job.values.get(key) for key in keys) for job in jobs})

    for key in sorted(keys, key=rank):
        fewer = [other for other in kept if other != key]
        if groups(fewer) == groups(kept):
            kept = fewer
    return kept


def name_of(job: SweptJob, keys: Sequence[str]) -> str:
    """Of its line: the values of these keys, a norm and what goes with it by their own names."""
    parts = []
    for key in keys:
        if (value := job.values.get(key)) is not None:
            parts.append(value if key in _NAMES else f"{key}={value}")
    return ", ".join(parts) or "all"


def _grid(axis: str, jobs: Sequence[SweptJob], keys: Sequence[str]) -> Grid:
    series: dict[str, dict[str, list[SweptJob]]] = {}
    for job in jobs:
        series.setdefault(name_of(job, keys), {}).setdefault(job.values.get(axis, ""), []).append(job)
    places = dict.fromkeys(job.values.get(axis, "") for job in jobs)
    return Grid(axis, tuple(sorted(places, key=lambda place: (_number(place) is None, _number(place) or 0.0))), series)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
