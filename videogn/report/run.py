"""report.html of a run folder: one page that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from videogn.evaluation.metrics import calibration, confusion
from videogn.evaluation.result import Result, read_result
from videogn.report.confusion import confused_together, most_confused, sparse
from videogn.report.curves import read_curves
from videogn.report.media import Example, Media, encode
from videogn.report.model import Inspection
from videogn.report.page import count, duration, encoded, interval, number, percent, render, size, write_whole
from videogn.report.plot import Drawing, curve_plot, reliability_plot
from videogn.report.settings import read_config, settings, split_counts

LARGEST_PAGE = 6_000_000  # bytes
_MOST_PAIRS = 60
_FEW_CLASSES = 8  # the worst and the best
_MOST_DEAD = 200
_MOST_EXAMPLES = 48
_LONGEST_CONFIG = 200_000  # characters; ours have 4,000
_LARGEST_TABLE = 40  # classes of a matrix that is also a table, for browsers without a script


def write_report(
    folder: Path, examples: Sequence[Example] = (), network: Inspection | None = None, result: Result | None = None
) -> Path:
    """Write `folder`/report.html from its result.json and scores.npz and, if there, config.yaml, metrics.csv and manifest.csv.

    The page is below 6 MB: where pictures and clips of the examples would make it larger they become smaller or are left out, and
    the page says so.

    Args:
        examples: videos to be shown, the hardest first; those after the first 48 are left out.
        network: what the model is made of.
        result: of the folder, where it has been read.

    Raises:
        InputError: the folder has no result, or a damaged one.
    """
    result = result or read_result(folder)
    config_text, config = read_config(folder)
    plots = {f"curve-{index}": plot for index, plot in enumerate(_curves(folder))}
    entries = [_entry(result, facts, index) for index, facts in enumerate(result.facts["results"])]
    for index, entry in enumerate(entries):
        if entry["calibration"]:
            plots[f"calibration-{index}"] = entry["calibration"]
    data = {
        "plots": {name: plot.readout for name, plot in plots.items()},
        "classes": result.classes,
        "matrices": [entry["data"] for entry in entries],
    }
    shown = list(examples[:_MOST_EXAMPLES])
    context = {
        "result": result.facts,
        "folder": folder.resolve().name,
        "num_scored": len(result.labels),
        "classes": result.classes,
        "entries": entries,
        "cards": _cards(result),
        "settings": settings(config),
        "splits": split_counts(folder),
        "curves": {name: plot for name, plot in plots.items() if name.startswith("curve-")},
        "network": network,
        "audit": _audit(network),
        "timing": _timing(result.facts.get("timing") or {}),
        "config": config_text
        if config_text is None or len(config_text) <= _LONGEST_CONFIG
        else config_text[:_LONGEST_CONFIG] + "...",
        "num_more_examples": len(examples) - len(shown),
        "largest_table": _LARGEST_TABLE,
        "most_dead": _MOST_DEAD,
    }

    def page(media: Sequence[Media]) -> str:
        return render("page.html.jinja", data, examples=list(zip(shown, media, strict=True)), **context)

    bare = len(encoded(page([Media(is_reduced=True)] * len(shown))))
    # 600 characters: the tags around a poster, a clip and a strip.
    media = encode(shown, LARGEST_PAGE - bare - 600 * len(shown) - 1000)
    return write_whole(folder / "report.html", page(media))


def _entry(result: Result, facts: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What the page shows of one protocol, `facts` being its part of result.json."""
    probabilities = result.scores[facts["name"]].videos()
    matrix = confusion(probabilities, result.labels)
    parts = calibration(probabilities, result.labels)
    per_class = facts["metrics"]["per_class"]
    names = result.classes
    classes = [_of_class(row, per_class.get(name, {}), matrix[row], names) for row, name in enumerate(names)]
    # A class's top-1 is that of all its videos, dead ones included, as in result.json.
    order = sorted((c for c in classes if c["num_videos"]), key=lambda c: (c["top1"], -c["num_videos"]))
    worst = [c for c in order if c["top1"] < 1][:_FEW_CLASSES]
    return {
        **facts,
        "pairs": most_confused(matrix, _MOST_PAIRS),
        "num_pairs": int(np.count_nonzero(matrix) - np.count_nonzero(matrix.diagonal())),
        "num_wrong": int(matrix.sum() - matrix.trace()),
        "matrix": matrix.tolist() if len(matrix) <= _LARGEST_TABLE else None,
        "per_class": classes,
        "worst": worst,
        "best": [c for c in sorted(order, key=lambda c: (-c["top1"], -c["num_videos"])) if c["top1"] > 0 and c not in worst][
            :_FEW_CLASSES
        ],
        "calibration": reliability_plot("Right answers against their probability", parts) if parts else None,
        "data": {
            "name": facts["name"],
            "index": index,
            "cells": sparse(matrix),
            "together": confused_together(matrix),
            "videos": [c["num_videos"] for c in classes],
            "top1": [c["top1"] for c in classes],
        },
    }


def _of_class(index: int, facts: Mapping[str, Any], row: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """A class's part of result.json, and what its videos were taken for most often."""
    others = row.copy()
    others[index] = 0
    most = int(others.argmax())
    return {
        "name": classes[index],
        "num_videos": facts.get("num_videos", 0),
        **{key: facts.get(key) for key in ("top1", "precision", "f1")},
        "taken_for": (classes[most], int(others[most])) if others[most] else None,
    }


def _cards(result: Result) -> list[tuple[str, str, str]]:
    """Name, value and a word to each of the figures at the top: those of the first protocol."""
    facts = result.facts
    if not facts["results"]:
        return []
    metrics, bounds = facts["results"][0]["metrics"], facts["results"][0].get("intervals_95") or {}
    timing = facts.get("timing") or {}
    rate = timing.get("train_clips_per_second")
    cards = [
        ("top-1", percent(metrics["top1"]), f"95%: {interval(bounds.get('top1'))}"),
        ("top-5", percent(metrics["top5"]), f"95%: {interval(bounds.get('top5'))}") if metrics["top5"] is not None else None,
        ("mean of classes", percent(metrics["mean_class"]), f"macro F1 {percent(metrics['macro_f1'])}"),
        ("loss", number(metrics["loss"]), "cross entropy, nats"),
        ("calibration error", percent(metrics["calibration_error"]), "expected, 15 bins"),
        ("videos tested", count(len(result.labels)), f"{len(result.classes):,} classes"),
        ("time", duration(timing.get("total_seconds")), f"{rate:,.1f} training clips/s" if rate else facts["command"]),
        (
            "peak memory",
            size(facts.get("peak_memory_bytes")),
            "of the GPU" if facts["hardware"].get("gpus") else "of the process",
        ),
    ]
    return [card for card in cards if card is not None and card[1] != "-"]


def _curves(folder: Path) -> list[Drawing]:
    forms = {"top-1": percent}
    titles = {"loss": "Loss", "top-1": "Top-1", "learning rate": "Learning rate"}
    curves = read_curves(folder / "metrics.csv")
    return [curve_plot(titles[name], lines, forms.get(name, number)) for name, lines in curves.items()]


def _timing(timing: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Seconds as durations, rates and others as numbers."""
    rows = []
    for key, value in timing.items():
        name = key.removesuffix("_seconds").replace("_per_second", " / s").replace("_", " ")
        rows.append((name, duration(value) if key.endswith("_seconds") else number(value)))
    return rows


def _audit(network: Inspection | None) -> list[str]:
    """What one looks for in the norms of a network, in sentences."""
    norms = [layer for layer in network.layers if layer.is_norm] if network else []
    if not norms:
        return []
    kinds = {kind: sum(norm.kind == kind for norm in norms) for kind in dict.fromkeys(norm.kind for norm in norms)}
    decaying = sum(norm.decays is True for norm in norms)
    tails = [norm for norm in norms if norm.activation]
    return [
        f"{len(norms)} norms: " + ", ".join(f"{number} {kind}" for kind, number in kinds.items()),
        f"{sum(norm.starts_at_zero for norm in norms)} start at gamma = 0",
        f"{sum(norm.is_fused for norm in tails)} of {len(tails)} activations are computed with their norm",
        f"weight decay reaches {decaying or 'none'} of the norms",
    ]
