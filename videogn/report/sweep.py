"""The report of a sweep: a page, Markdown, and a CSV of its jobs."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogn.evaluation.replicates import Summary
from videogn.report.page import number, render, write_whole
from videogn.report.plot import Drawing, Estimates, estimate_plot
from videogn.report.published import Published, tables
from videogn.report.swept import QUANTITIES, REPEATS, Grid, SweptJob, current, grids, name_of, varying
from videogn.whole import whole

_STATES = ("done", "running", "interrupted", "failed", "missing")


@dataclass(frozen=True)
class Table:
    """A quantity over an axis: the text of each line at each place, "" where there is none."""

    title: str
    axis: str
    places: Sequence[str]
    rows: Mapping[str, Sequence[str]]


def write_sweep(folder: Path, command_line: str, jobs: Sequence[SweptJob]) -> list[Path]:
    """report.html, report.md and report.csv in the sweep's folder, each whole.

    Args:
        command_line: that made the sweep, and goes on with it.
        jobs: in the order of the sweep; at least one.
    """
    name = folder.resolve().name
    found = grids(jobs)
    plots = {f"plot-{index}": plot for index, plot in enumerate(plot for grid in found for plot in _plots(grid))}
    measured = _all_tables(jobs)
    published = [table for grid in found for table in tables(grid.axis)]
    context: dict[str, Any] = {
        "name": name,
        "command_line": command_line,
        "counts": {state: sum(job.state == state for job in jobs) for state in _STATES},
        "num_jobs": len(jobs),
        "tables": measured,
        "published": [_published_table(table) for table in published],
        "missing": _missing(jobs),
        "warnings": _warnings(jobs),
        "facts": _facts(jobs),
    }
    shown = {f"published-{index}": _published_plot(table) for index, table in enumerate(published) if len(_places(table)) > 1}
    data = {"plots": {key: plot.readout for key, plot in {**plots, **shown}.items()}, "classes": [], "matrices": []}
    page = render("sweep.html.jinja", data, plots=plots, published_plots=shown, **context)
    write_whole(folder / "report.html", page)
    write_whole(folder / "report.md", _markdown(context))
    _write_csv(folder / "report.csv", jobs)
    return [folder / f"report.{suffix}" for suffix in ("html", "md", "csv")]


def tables_of(jobs: Sequence[SweptJob]) -> str:
    """What was measured, as Markdown."""
    lines = [line for table in _all_tables(jobs) for line in (f"## {table.title}", "", *_markdown_table(table), "")]
    return "\n".join(lines)


def _all_tables(jobs: Sequence[SweptJob]) -> list[Table]:
    return [table for grid in grids(jobs) for table in _tables(grid)]


def _plots(grid: Grid) -> list[Drawing]:
    """Of the error and of what else differs, where there is an axis with places."""
    if len(grid.places) < 2:
        return []
    drawn = []
    for quantity in QUANTITIES:
        lines = grid.summaries(quantity)
        if sum(map(len, lines.values())) > 1:
            estimates = [
                Estimates(name, {place: (one.mean, one.bounds) for place, one in places.items()})
                for name, places in lines.items()
            ]
            drawn.append(estimate_plot(quantity.title, grid.places, estimates, grid.axis))
    return drawn


def _tables(grid: Grid) -> list[Table]:
    found = []
    for quantity in QUANTITIES:
        lines = grid.summaries(quantity)
        if lines:
            rows = {name: [_cell(lines.get(name, {}).get(place)) for place in grid.places] for name in grid.series}
            found.append(Table(quantity.title, grid.axis, grid.places, rows))
    return found


def _cell(one: Summary | None) -> str:
    if one is None:
        return ""
    if one.half_width:
        # Both to the second digit of the half width: more of the mean nobody can believe.
        decimals = max(0, 1 - math.floor(math.log10(one.half_width)))
        return f"{one.mean:.{decimals}f} ± {one.half_width:.{decimals}f} ({one.num})"
    mean = number(one.mean) if abs(one.mean) < 1e4 else f"{one.mean:.0f}"
    return f"{mean} ({one.num})" if one.half_width is None else f"{mean} ± 0 ({one.num})"


def _places(table: Published) -> list[str]:
    return sorted({place for line in table.lines.values() for place in line}, key=float)


def _published_table(table: Published) -> Table:
    places = _places(table)
    rows = {name: [f"{line[place]:.1f}" if place in line else "" for place in places] for name, line in table.lines.items()}
    return Table(table.title, table.axis, places, rows)


def _published_plot(table: Published) -> Drawing:
    lines = [Estimates(name, {place: (error, None) for place, error in line.items()}) for name, line in table.lines.items()]
    return estimate_plot(f"{table.title}: error, %", _places(table), lines, table.axis)


def _missing(jobs: Sequence[SweptJob]) -> list[tuple[str, str, str, str]]:
    """Of every job that is not done: folder, values, state, message."""
    keys = [*varying(jobs), *(key for key in REPEATS if any(key in job.values for job in jobs))]
    return [(job.identity, name_of(job, keys), job.state, job.message) for job in jobs if not job.is_done]


def _warnings(jobs: Sequence[SweptJob]) -> list[str]:
    """What makes the jobs' figures no figures of one thing."""
    results = [job.result for job in jobs if job.result is not None]
    hashes = {result["results"][0]["protocol_hash"] for result in results}
    splits = {result["split"] for result in results}
    found = []
    if older := len(jobs) - len(current(jobs)):
        are = "jobs are left out: they are" if older > 1 else "job is left out: it is"
        found.append(f"{older} {are} of older data, another version or another configuration")
    if devices := _mixed_devices(jobs):
        found.append(
            f"repetitions were trained on {' and '.join(map(str, devices))} devices: their steps have other numbers of clips, "
            "and they repeat nothing"
        )
    if len(hashes) > 1:
        found.append(
            f"the first protocols of the jobs are {len(hashes)} different ones (clip, crops or decoder vary): their scores do "
            "not compare as those of one protocol do"
        )
    if len(splits) > 1:
        found.append(f"some jobs were tested on {' and some on '.join(sorted(splits))}")
    if any(result["selected_on_test"] for result in results):
        found.append("there is no test split, and training was stopped or chosen on the tested videos")
    return found


def _mixed_devices(jobs: Sequence[SweptJob]) -> list[int]:
    """The numbers of devices within cells that have several."""
    cells = [cell for grid in grids(jobs) for places in grid.series.values() for cell in places.values()]
    counts = [{job.result["hardware"].get("num_devices") for job in cell if job.result is not None} - {None} for cell in cells]
    return sorted(set().union(*(of for of in counts if len(of) > 1)))


def _facts(jobs: Sequence[SweptJob]) -> dict[str, str]:
    """Of the done jobs, what most have: data, protocol, processors, versions."""
    results = [job.result for job in jobs if job.result is not None]
    if not results:
        return {}

    def said(read: Any) -> str:
        return "; ".join(dict.fromkeys(read(result) for result in results))

    return {
        "data": said(lambda r: f"{r['dataset']['name']}, tested on {r['split']}"),
        "protocol": said(lambda r: r["results"][0]["name"]),
        "processors": said(lambda r: ", ".join([f"{r['hardware']['cpus']} CPUs", *r["hardware"].get("gpus", [])])),
        "versions": said(lambda r: f"videogn {r['versions']['videogn']}, torch {r['versions']['torch']}"),
    }


def _markdown(context: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in context["counts"].items() if count)
    lines = [f"# {_plain(context['name'])}", "", f"    {context['command_line']}", "", f"{context['num_jobs']} jobs: {counts}."]
    lines += [f"{key}: {_plain(value)}." for key, value in context["facts"].items()]
    lines += [f"Beware: {warning}." for warning in context["warnings"]]
    lines += ["", "A cell is the mean, ± half of its 95% interval (Student's t over the repetitions), and how many they were."]
    for table in context["tables"]:
        lines += ["", f"## {table.title}", "", *_markdown_table(table)]
    for table in context["published"]:
        lines += ["", f"## The paper's: {table.title}: error, %", "", *_markdown_table(table)]
    if context["published"]:
        lines += ["", "The paper's are other data and another network: the shape of a line compares, not its height."]
    if context["missing"]:
        lines += ["", "## Jobs that are not done", "", "| job | values | state | message |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(map(_plain, row))} |" for row in context["missing"]]
    return "\n".join([*lines, ""])


def _markdown_table(table: Table) -> list[str]:
    head = [table.axis or "job", *table.places] if table.axis else ["job", "value"]
    rows = [[name, *cells] for name, cells in table.rows.items()]
    return [
        f"| {' | '.join(map(_plain, head))} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(map(_plain, row))} |" for row in rows),
    ]


def _plain(text: str) -> str:
    """Within a cell of Markdown."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _write_csv(path: Path, jobs: Sequence[SweptJob]) -> None:
    """A row for every protocol of every job, and one for a job without a result."""
    keys = [*varying(jobs), *(key for key in REPEATS if any(key in job.values for job in jobs))]
    metrics = ("top1", "top5", "mean_class", "macro_f1", "loss", "calibration_error")
    figures = ("total_seconds", "fit_seconds", "train_clips_per_second")
    head = ["job", "state", *keys, "protocol", "protocol_hash", *metrics, "val_top1", "val_loss", *figures, "peak_memory_bytes"]
    with whole(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for job in jobs:
            known = [job.identity, job.state, *(job.values.get(key, "") for key in keys)]
            if job.result is None:
                writer.writerow([*known, *[""] * (len(head) - len(known))])
                continue
            validation = [job.validation.get("top1", ""), job.validation.get("loss", "")]
            timing = job.result.get("timing") or {}
            for entry in job.result["results"]:
                scores = ["" if entry["metrics"].get(name) is None else entry["metrics"][name] for name in metrics]
                costs = [*(timing.get(name, "") for name in figures), job.result.get("peak_memory_bytes", "")]
                writer.writerow([*known, entry["name"], entry["protocol_hash"], *scores, *validation, *costs])
