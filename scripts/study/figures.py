"""The figures and tables of a study, from the report.csv of its sweeps.

python scripts/study/figures.py study/motion.csv

writes motion_error.svg, motion_loss.svg and the tables, motion.md, beside it; where the jobs have several axes, each figure with
the name of its own. A copy of a sweep's report.csv is all it needs.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from markupsafe import Markup

from videogn.report.plot import HEIGHT, WIDTH, Estimates, estimate_plot
from videogn.report.sweep import tables_of
from videogn.report.swept import QUANTITIES, SweptJob, grids

SHOWN = {"Top-1 error": "error", "Loss": "loss"}
COLOURS = ("#1d5fd1", "#b0440a", "#136f4e", "#a02c8c", "#7a5c00", "#0b6e7f", "#b3261e", "#4b4b9f")
STYLE = """text { font: 11px sans-serif; fill: #444 } .name { font-weight: 600 } .grid { stroke: #ddd; stroke-width: 1 }
.axis { fill: none; stroke: #666 } .line { fill: none; stroke: currentColor; stroke-width: 2 } .dot { fill: currentColor }
""" + "".join(f".s{index} {{ color: {colour} }} " for index, colour in enumerate(COLOURS))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("reports", nargs="+", type=Path, help="the report.csv of a sweep each")
    for report in parser.parse_args().reports:
        found = grids(jobs(report))
        for grid in found:
            axis = f"{grid.axis}_" if sum(len(one.places) > 1 for one in found) > 1 else ""
            for quantity in QUANTITIES:
                lines = grid.summaries(quantity)
                if quantity.name in SHOWN and len(grid.places) > 1 and lines:
                    write_figure(
                        report.with_name(f"{report.stem}_{axis}{SHOWN[quantity.name]}.svg"),
                        quantity,
                        grid.places,
                        lines,
                        grid.axis,
                    )
        report.with_suffix(".md").write_text(tables_of(jobs(report)), encoding="utf-8")


def jobs(report: Path) -> list[SweptJob]:
    """Those of a report.csv, each with its first protocol."""
    found: dict[str, SweptJob] = {}
    with report.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            keys = list(row)[2 : list(row).index("protocol")]
            metrics = {key: float(row[key]) for key in ("top1", "loss", "mean_class") if row[key]}
            timing = {key: float(row[key]) for key in ("total_seconds", "train_clips_per_second") if row[key]}
            result = {
                "results": [{"metrics": metrics}],
                "timing": timing,
                "peak_memory_bytes": int(row["peak_memory_bytes"] or 0),
            }
            validation = {key: float(row[f"val_{key}"]) for key in ("top1", "loss") if row[f"val_{key}"]}
            values = {key: row[key] for key in keys if row[key]}
            done = row["state"] == "done"
            found.setdefault(row["job"], SweptJob(row["job"], values, row["state"], result if done else None, validation))
    return list(found.values())


def write_figure(path: Path, quantity, places, lines, axis: str) -> None:
    """A plot as a file that stands alone, its legend below it."""
    estimates = [Estimates(name, {p: (s.mean, s.bounds) for p, s in of.items()}) for name, of in lines.items()]
    drawing = estimate_plot(quantity.title, places, estimates, axis.replace("_", " "))
    inner = str(drawing.svg).split(">", 1)[1].removesuffix("</svg>")
    legend, x, y = [Markup('<text class="name" x="50" y="14">{}</text>').format(quantity.title)], 50.0, HEIGHT + 34
    for index, name in enumerate(drawing.legend):
        width = 24 + 6.2 * len(name)
        if x + width > WIDTH:
            x, y = 50.0, y + 16
        legend.append(
            Markup('<g class="s{}"><path class="line" d="M{:.0f},{:.0f} h14"/><text x="{:.0f}" y="{:.0f}">{}</text></g>').format(
                index % 8, x, y - 4, x + 18, y, name
            )
        )
        x += width
    height = y + 10
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH * 1.4:.0f}">'
    body = f'<g transform="translate(0 14)">{inner}</g>{"".join(legend)}'
    path.write_text(f'{head}<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n', encoding="utf-8")


if __name__ == "__main__":
    main()
