"""result.json and scores.npz of a run folder."""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from videogn import __version__
from videogn.evaluation.aggregation import AGGREGATIONS
from videogn.evaluation.metrics import classification_metrics, confusion, intervals
from videogn.evaluation.multi_view import Scores
from videogn.evaluation.protocol import Protocol, protocol_hash
from videogn.types import InputError
from videogn.whole import whole

SCHEMA = 2


def protocol_results(
    scores: Mapping[str, Scores],
    protocols: Mapping[str, Protocol],
    decoder: str,
    tested: Sequence[str],
    labels: Int64[np.ndarray, " V"],
    classes: Sequence[str],
) -> list[dict[str, Any]]:
    """The `results` of result.json: for each protocol its facts, their hash, the metrics and their 95% intervals.

    Videos to which the network gave scores that are no finite numbers are listed with those that could not be read.

    Args:
        tested: the paths of the videos.
    """
    results = []
    for name, protocol in protocols.items():
        description = protocol.describe(decoder)
        reasons = {dead.video: (dead.path, dead.reason) for dead in scores[name].dead}
        for row in np.flatnonzero(np.logical_not(scores[name].alive())).tolist():
            reasons.setdefault(row, (str(tested[int(row)]), "the network gives scores that are no finite numbers"))
        results.append(
            {
                "name": name,
                "protocol": description,
                "protocol_hash": protocol_hash(description),
                "metrics": classification_metrics(scores[name], labels, classes),
                "intervals_95": intervals(scores[name], labels),
                "dead_videos": [{"path": path, "reason": reason} for _, (path, reason) in sorted(reasons.items())],
            }
        )
    return results


def environment(num_devices: int) -> dict[str, Any]:
    """`versions` and `hardware` of result.json: all GPUs of the machine, and how many devices of any kind the command had."""
    packages = ("torch", "lightning", "av", "numpy")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": {"videogn": __version__, "python": platform.python_version(), **{p: version(p) for p in packages}},
        "hardware": {"machine": platform.machine(), "cpus": os.cpu_count(), "gpus": gpus, "num_devices": num_devices},
    }


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far; where there is a GPU, of its allocations instead."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux


def write_result(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """result.json, whole or not at all; returns what is in it."""
    facts = {"schema": SCHEMA, **result}
    text = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A path that is not UTF-8 has lone surrogates; \udce9, as they are written here, is what JSON has for them.
    with whole(folder / "result.json") as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    return facts


def write_scores(
    folder: Path,
    scores: Mapping[str, Scores],
    paths: Sequence[str],
    labels: Int64[np.ndarray, " V"],
    classes: Sequence[str],
) -> None:
    """scores.npz: paths (V), labels (V), classes (K), and for each protocol its confusion (K, K) and its logits (V, views, K),
    NaN for a dead video; where videos differ in their number of views also num_views (V), behind which logits are NaN."""
    arrays: dict[str, Any] = {"paths": np.array(paths), "labels": labels, "classes": np.array(classes)}
    arrays |= {f"{name}/logits": s.logits for name, s in scores.items()}
    arrays |= {f"{name}/confusion": confusion(s.videos(), labels) for name, s in scores.items()}
    arrays |= {f"{name}/num_views": s.num_views for name, s in scores.items() if s.num_views is not None}
    with whole(folder / "scores.npz") as unfinished:
        np.savez(unfinished, **arrays)  # compressed, the logits of Kinetics are 7% smaller and take minutes


@dataclass(frozen=True)
class Result:
    """What a run folder says of its scores.

    Attributes:
        facts: result.json.
        paths: V paths.
        labels: the true class of every video.
        classes: K names.
        scores: by the name of the protocol; why videos are dead stands in `facts`.
    """

    facts: Mapping[str, Any]
    paths: list[str]
    labels: Int64[np.ndarray, " V"]
    classes: list[str]
    scores: Mapping[str, Scores]


def read_facts(folder: Path) -> dict[str, Any]:
    """A folder's result.json alone.

    Raises:
        InputError: it is not there, is of another schema, or is not what `write_result` wrote.
    """
    try:
        facts = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        if facts["schema"] != SCHEMA:
            raise InputError(
                f"{folder}: its result.json is of schema {facts['schema']}, and this videogn reads schema {SCHEMA}; test its "
                "checkpoint anew, with videogn evaluate"
            )
        _check_facts(facts)
    except OSError as error:
        raise InputError(f"{folder}: no result ({error.strerror}: {error.filename}); give a finished run") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{folder}: its result.json is damaged ({reason}); give a finished run") from None
    return facts


def read_result(folder: Path) -> Result:
    """A folder's result.json and scores.npz.

    Raises:
        InputError: one of them is not there, is of another schema, or is not what `write_result` and `write_scores` wrote.
    """
    for name in ("result.json", "scores.npz"):
        if (folder / name).exists() and not (folder / name).is_file():
            raise InputError(f"{folder}: its {name} is no file; give a finished run")
    try:
        facts = read_facts(folder)
        with zipfile.ZipFile(folder / "scores.npz") as members:
            if any(member.compress_type != zipfile.ZIP_STORED for member in members.infolist()):
                raise ValueError("compressed arrays, which may be of any size; write_scores writes none")
        with (folder / "scores.npz").open("rb") as file, np.load(file) as arrays:
            scores = {
                name: Scores(arrays[f"{name}/logits"], (), entry["protocol"]["aggregation"], arrays.get(f"{name}/num_views"))
                for entry in facts["results"]
                for name in [entry["name"]]
            }
            paths, classes = ([str(name) for name in arrays[key]] for key in ("paths", "classes"))
            _check_scores(paths, arrays["labels"], classes, scores)
            return Result(facts, paths, arrays["labels"], classes, scores)
    except OSError as error:
        raise InputError(f"{folder}: no result ({error.strerror}: {error.filename}); give a finished run") from None
    except InputError:
        raise
    except Exception as error:  # bytes of any kind make numpy, zlib and the parsers fail in any way
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{folder}: its result.json or scores.npz is damaged ({reason}); give a finished run") from None


def _check_scores(
    paths: Sequence[str],
    labels: np.ndarray,
    classes: Sequence[str],
    scores: Mapping[str, Scores],
) -> None:
    """Raises ValueError: arrays that do not belong together."""
    if not scores or not len(paths):
        raise ValueError("no protocol, or no video")
    if labels.shape != (len(paths),) or labels.dtype != np.int64 or not ((labels >= 0) & (labels < len(classes))).all():
        raise ValueError("labels are no classes of the videos")
    for name, of in scores.items():
        if of.logits.ndim != 3 or of.logits.dtype != np.float32 or of.logits.shape[::2] != (len(paths), len(classes)):
            raise ValueError(f"{name}: logits are {of.logits.dtype} {of.logits.shape}")
        if of.aggregation not in AGGREGATIONS:
            raise ValueError(f"{name}: aggregation {of.aggregation!r}")
        counts = of.num_views
        if counts is not None and (counts.shape != labels.shape or not ((counts >= 0) & (counts <= of.logits.shape[1])).all()):
            raise ValueError(f"{name}: no such numbers of views")


def _check_facts(facts: Mapping[str, Any]) -> None:
    """Raises ValueError: what a reader relies on is not there."""
    for key in ("command", "command_line", "directory", "split", "dataset", "hardware", "versions", "config_hash", "timing"):
        if key not in facts:
            raise ValueError(f"no {key}")
    for entry in facts["results"]:
        for key in ("metrics", "protocol_hash", "intervals_95", "dead_videos"):
            if key not in entry:
                raise ValueError(f"{entry['name']}: no {key}")
