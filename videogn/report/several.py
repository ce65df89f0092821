"""Runs side by side: one page that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from videogn.evaluation.compare import Change, Comparison, compare
from videogn.evaluation.result import Result, read_result
from videogn.report.curves import read_curves
from videogn.report.model import Inspection
from videogn.report.page import count, duration, interval, large, number, percent, render, size, write_whole
from videogn.report.plot import Drawing, Line, curve_plot, interval_plot
from videogn.report.settings import Settings, differing, read_config, settings, split_counts
from videogn.types import InputError

_MOST_CHANGES = 20
_MOST_KEYS = 200  # in which configurations differ
_SETTINGS = (
    "model",
    "norm",
    "convolution",
    "weights at the start",
    "checkpoint",
    "clip",
    "batch size",
    "learning rate",
    "epochs",
)
_MORE_SETTINGS = ("steps", "optimizer", "schedule", "dropout", "precision", "devices", "seed")


@dataclass(frozen=True)
class Run:
    """A run folder: its letter in the page, and what it holds."""

    letter: str
    name: str
    result: Result
    config: Mapping[str, Any]
    settings: Settings
    curves: Mapping[str, Sequence[Line]]
    splits: Mapping[str, int]


@dataclass(frozen=True)
class Row:
    """A quantity of the table: its name, a text for every run, and the runs that have the best of several values."""

    name: str
    cells: Sequence[str]
    best: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Versus:
    """A later run against the first: comparisons, or why there are none."""

    run: Run
    comparisons: Sequence[Comparison]
    reason: str | None


def write_comparison(
    folders: Sequence[Path], path: Path, networks: Sequence[Inspection | None] = (), results: Sequence[Result] = ()
) -> Path:
    """Write a page that shows runs side by side, and what each later one has over the first, to `path`.

    Args:
        folders: of runs; they are named by as much of their paths as tells them apart, and by a letter.
        networks: of each run what its model is made of, where that is known.
        results: of the folders, where they have been read.

    Raises:
        InputError: no folder, or one without a result or with a damaged one.
    """
    if not folders:
        raise InputError("compare: no run folder; give one or more")
    results = results or [read_result(folder) for folder in folders]
    runs = [_run(*facts) for facts in zip(letters(len(folders)), names(folders), folders, results, strict=True)]
    plots = {f"curve-{index}": plot for index, plot in enumerate(_curves(runs))}
    keys = differing([run.config for run in runs])
    text = render(
        "several.html.jinja",
        {"plots": {name: plot.readout for name, plot in plots.items()}, "classes": [], "matrices": []},
        runs=runs,
        groups=[
            *((f"Result, {name}", rows) for name, rows in _results(runs)),
            ("What was run", _settings(runs)),
            ("Speed and memory", _costs(runs, networks)),
        ],
        plots=plots,
        intervals=_intervals(runs),
        keys=dict(list(keys.items())[:_MOST_KEYS]),
        num_more_keys=max(0, len(keys) - _MOST_KEYS),
        without_config=[run for run in runs if not run.config],
        versus=[_versus(runs[0], run) for run in runs[1:]],
        most_changes=_MOST_CHANGES,
        change_text=_change_text,
    )
    return write_whole(path, text)


def letters(num: int) -> list[str]:
    """A, B, ... Z, AA, AB, ..."""
    found: list[str] = []
    for index in range(num):
        text, rest = "", index + 1
        while rest:
            rest, digit = divmod(rest - 1, 26)
            text = ascii_uppercase[digit] + text
        found.append(text)
    return found


def names(folders: Sequence[Path]) -> list[str]:
    """For each folder the last parts of its path, as many as tell it from all that are other folders."""
    paths = [folder.resolve() for folder in folders]
    found = []
    for path in paths:
        others = {other for other in paths if other != path}
        depth = 1
        while depth < len(path.parts) and any(other.parts[-depth:] == path.parts[-depth:] for other in others):
            depth += 1
        found.append(str(Path(*path.parts[-depth:])))
    return found


def _run(letter: str, name: str, folder: Path, result: Result) -> Run:
    _, config = read_config(folder)
    return Run(letter, name, result, config, settings(config), read_curves(folder / "metrics.csv"), split_counts(folder))


def _settings(runs: Sequence[Run]) -> list[Row]:
    found = [Row(name, [run.settings.get(name, "-") for run in runs]) for name in (*_SETTINGS, *_MORE_SETTINGS)]
    facts = [run.result.facts for run in runs]
    found += [
        Row("data", [_data(run) for run in runs]),
        Row("command", [fact["command"] for fact in facts]),
        Row("processors", [", ".join([f"{f['hardware']['cpus']} CPUs", *f["hardware"].get("gpus", [])]) for f in facts]),
        Row("videogn", [fact["versions"].get("videogn", "-") for fact in facts]),
        Row("torch", [fact["versions"].get("torch", "-") for fact in facts]),
        Row("configuration hash", [fact["config_hash"] for fact in facts]),
    ]
    return [row for row in found if set(row.cells) != {"-"}]


def _data(run: Run) -> str:
    facts = run.result.facts
    parts = ", ".join(f"{num:,} {split}" for split, num in run.splits.items()) or f"{facts['dataset']['num_videos']:,} videos"
    warning = "; chosen on the tested videos" if facts["selected_on_test"] else ""
    return f"{facts['dataset']['name']} ({parts}), tested on {facts['split']}{warning}"


def _results(runs: Sequence[Run]) -> list[tuple[str, list[Row]]]:
    """The figures of every protocol; protocols are the same where their hashes are."""
    found: dict[str, list[Mapping[str, Any] | None]] = {}
    for place, run in enumerate(runs):
        for entry in run.result.facts["results"]:
            found.setdefault(entry["protocol_hash"], [None] * len(runs))[place] = entry
    groups, titles = [], [next(e["name"] for e in entries if e) for entries in found.values()]
    for (key, entries), title in zip(found.items(), titles, strict=True):
        rows = [
            _metric("top-1", entries, "top1", percent),
            Row("95% interval", [interval((e.get("intervals_95") or {}).get("top1")) if e else "-" for e in entries]),
            _metric("top-5", entries, "top5", percent),
            _metric("mean of classes", entries, "mean_class", percent),
            _metric("macro F1", entries, "macro_f1", percent),
            _metric("loss", entries, "loss", number, sign=-1),
            _metric("calibration error", entries, "calibration_error", percent, sign=-1),
            Row("dead videos", [count(len(e["dead_videos"])) if e else "-" for e in entries]),
        ]
        name = title if titles.count(title) == 1 else f"{title} (hash {key})"
        groups.append((name, [row for row in rows if set(row.cells) != {"-"}]))
    return groups


def _metric(name: str, entries: Sequence[Mapping[str, Any] | None], key: str, form: Any, sign: int = 1) -> Row:
    values = [entry["metrics"].get(key) if entry else None for entry in entries]
    known = [value for value in values if value is not None]
    best = max(known, key=lambda value: sign * value) if len(set(known)) > 1 else None
    winners = frozenset(index for index, value in enumerate(values) if best is not None and value == best)
    return Row(name, [form(value) for value in values], winners)


def _costs(runs: Sequence[Run], networks: Sequence[Inspection | None]) -> list[Row]:
    timings = [run.result.facts.get("timing") or {} for run in runs]
    keys = list(dict.fromkeys(key for timing in timings for key in timing))
    rows = []
    for key in keys:
        form = duration if key.endswith("_seconds") else number
        name = key.removesuffix("_seconds").replace("_per_second", " / s").replace("_", " ")
        rows.append(Row(name, [form(timing.get(key)) for timing in timings]))
    if any(networks):
        rows += [
            Row("parameters", [large(network and network.parameters) for network in networks]),
            Row("FLOPs a clip", [large(network and network.flops) for network in networks]),
            Row("kept a clip for backward", [size(network and network.bytes_kept) for network in networks]),
        ]
    return [*rows, Row("peak memory", [size(run.result.facts.get("peak_memory_bytes")) for run in runs])]


def _curves(runs: Sequence[Run]) -> list[Drawing]:
    """One plot for every line that a run's own page has, all runs in it."""
    kinds: dict[tuple[str, str], list[tuple[Run, Line]]] = {}
    for run in runs:
        for quantity, lines in run.curves.items():
            for line in lines if quantity != "learning rate" else lines[:1]:
                kind = line.name if quantity != "learning rate" else ""
                kinds.setdefault((quantity, kind), []).append((run, line))
    order = ["loss", "top-1", "learning rate"]
    plots = []
    for (quantity, kind), lines in sorted(kinds.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
        title = f"{quantity.capitalize()}, {kind}" if kind else quantity.capitalize()
        # A run without this line leaves its colour unused, so that colours mean runs.
        by_run = {run.letter: line for run, line in lines}
        drawn = [Line(run.letter, by_run[run.letter].points if run.letter in by_run else ()) for run in runs]
        plots.append(curve_plot(title, drawn, percent if quantity == "top-1" else number))
    return plots


def _intervals(runs: Sequence[Run]) -> list[Drawing]:
    hashes = {entry["protocol_hash"]: entry["name"] for run in reversed(runs) for entry in run.result.facts["results"]}
    plots = []
    for key, name in reversed(hashes.items()):
        rows = [
            (run.letter, entry["metrics"]["top1"], (entry.get("intervals_95") or {}).get("top1"), place)
            for place, run in enumerate(runs)
            for entry in run.result.facts["results"]
            if entry["protocol_hash"] == key
        ]
        if len(rows) > 1:
            plots.append(interval_plot(f"Top-1, {name}", rows))
    return plots


def _versus(first: Run, second: Run) -> Versus:
    try:
        return Versus(second, compare(first.result, second.result), None)
    except InputError as error:
        return Versus(second, (), str(error))


def _change_text(change: Change) -> str:
    answers = ("no answer" if answer is None else answer for answer in (change.first, change.second))
    return f"{change.path} ({change.label}): {' -> '.join(answers)}"
