"""result.json and scores.npz of a run folder."""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from videogn import __version__
from videogn.evaluation.metrics import classification_metrics
from videogn.evaluation.multi_view import Scores
from videogn.evaluation.protocol import Protocol, protocol_hash

SCHEMA = 1


def protocol_results(
    scores: Mapping[str, Scores],
    protocols: Mapping[str, Protocol],
    decoder: str,
    labels: Int64[np.ndarray, " V"],
    classes: Sequence[str],
) -> list[dict[str, Any]]:
    """The `results` of result.json: for each protocol its facts, their hash, and the metrics."""
    results = []
    for name, protocol in protocols.items():
        description = protocol.describe(decoder)
        results.append(
            {
                "name": name,
                "protocol": description,
                "protocol_hash": protocol_hash(description),
                "metrics": classification_metrics(scores[name], labels, classes),
                "dead_videos": [{"path": dead.path, "reason": dead.reason} for dead in scores[name].dead],
            }
        )
    return results


def environment() -> dict[str, Any]:
    """`versions` and `hardware` of result.json."""
    packages = ("torch", "lightning", "av", "numpy")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": {"videogn": __version__, "python": platform.python_version(), **{p: version(p) for p in packages}},
        "hardware": {"machine": platform.machine(), "cpus": os.cpu_count(), "gpus": gpus},
    }


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far; where there is a GPU, of its allocations instead."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """result.json, whole or not at all."""
    unfinished = folder / ".result.json"
    text = json.dumps({"schema": SCHEMA, **result}, indent=2, ensure_ascii=False) + "\n"
    # A path that is not UTF-8 has lone surrogates; \udce9, as they are written here, is what JSON has for them.
    unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(unfinished, folder / "result.json")


def write_scores(
    folder: Path,
    scores: Mapping[str, Scores],
    paths: Sequence[str],
    labels: Int64[np.ndarray, " V"],
    classes: Sequence[str],
) -> None:
    """scores.npz: paths (V), labels (V), classes (K), and for each protocol its views (V, views, K), NaN for a dead video."""
    arrays: dict[str, Any] = {"paths": np.array(paths), "labels": labels, "classes": np.array(classes)}
    arrays |= {f"{name}/views": s.views for name, s in scores.items()}
    unfinished = folder / ".scores.npz"
    np.savez_compressed(unfinished, **arrays)
    os.replace(unfinished, folder / "scores.npz")
