"""The short table at the end of train and evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_results(result: Mapping[str, Any], folder: Path) -> None:
    """One row a protocol, then the folder on a line of its own."""
    table = Table(title=f"{result['dataset']['name']}, {result['split']}", title_justify="left")
    for column in ("protocol", "top-1", "top-5", "loss", "videos", "dead"):
        table.add_column(column, justify="left" if column == "protocol" else "right")
    for entry in result["results"]:
        metrics = entry["metrics"]
        videos = sum(c["num_videos"] for c in metrics["per_class"].values())
        top5 = "-" if metrics["top5"] is None else f"{metrics['top5']:.1%}"
        loss = "-" if metrics["loss"] is None else f"{metrics['loss']:.4f}"
        table.add_row(entry["name"], f"{metrics['top1']:.1%}", top5, loss, str(videos), str(len(entry["dead_videos"])))
    console = Console()
    console.print(table)
    print(f"run folder: {folder}")
