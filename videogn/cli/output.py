"""What train and evaluate leave behind: the run folder's result, and the short table."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from videogn.cli.page import write_page
from videogn.dataset.manifest import Manifest
from videogn.evaluation.result import Result, environment, protocol_results, write_result, write_scores
from videogn.identity import config_hash
from videogn.prediction.load import classifier_of
from videogn.training.classifier import VideoClassifier
from videogn.types import Decoder, InputError
from videogn.whole import whole


def make_folder(out: Path) -> None:
    """Raises InputError where the folder cannot be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise InputError(f"out: {out}: cannot be written: {error.strerror}; give another folder with out=") from None


def write_config(config: Mapping[str, Any], out: Path) -> None:
    """config.yaml: the resolved configuration."""
    with whole(out / "config.yaml") as unfinished:
        unfinished.write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def shown(folder: Path) -> Path:
    """As a user would name it from here."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


@dataclass(frozen=True)
class TestedData:
    """What was tested, and how it was read.

    Attributes:
        name: of the data set.
        manifest: of all splits.
        tested: the split that was scored.
        num_trained_on: how many of the tested videos were trained on; None where that is not known.
        decoder: opened the videos.
        device: on which the network was tested.
    """

    name: str
    manifest: Manifest
    tested: Manifest
    num_trained_on: int | None
    decoder: Decoder
    device: torch.device


def finish(
    command_line: Sequence[str],
    out: Path,
    config: Mapping[str, Any],
    data: TestedData,
    classifier: VideoClassifier,
    timing: Mapping[str, float],
    peak_memory: int,
    num_devices: int,
) -> dict[str, Any]:
    """Write result.json, scores.npz and report.html into `out`, and print the table; returns what is in result.json.

    Args:
        command_line: the command, and what stood behind it.
        config: resolved.
        classifier: after `trainer.test`.
        timing: in seconds, and clips per second.
        peak_memory: bytes.
        num_devices: that trained, or tested where nothing was trained.
    """
    manifest, tested = data.manifest, data.tested
    labels = tested.targets()
    paths = [str(tested.path(row)) for row in range(len(tested))]
    results = protocol_results(classifier.test_scores, classifier.protocols, data.decoder.name, paths, labels, tested.classes)
    dead = set(classifier.dead) | {video["path"] for entry in results for video in entry["dead_videos"]}
    has_test = any(entry.split == "test" for entry in manifest.entries)
    result = {
        "command": command_line[0],
        "command_line": shlex.join(["videogn", *command_line]),
        "directory": os.getcwd(),
        "status": "done",
        "config_hash": config_hash(config),
        **environment(num_devices),
        "dataset": {
            "name": data.name,
            "root": manifest.place,
            "manifest_sha256": manifest.sha256(),
            "num_videos": len(manifest),
            "num_dead": len(dead),
            "num_missing": len(manifest.missing),
            "num_trained_on": data.num_trained_on,
        },
        "split": tested.entries[0].split,
        # Without a test split val is tested on; then a choice that looked at val has seen the answers.
        "selected_on_test": not has_test and _chose_on_val(config),
        "results": results,
        "timing": dict(timing),
        "peak_memory_bytes": peak_memory,
    }
    relative = [entry.path for entry in tested.entries]
    write_scores(out, classifier.test_scores, relative, labels, tested.classes)
    facts = write_result(out, result)
    _print(result, out)
    shown_by = classifier_of(classifier.network.eval(), config, classifier.classes, data.device, decoder=data.decoder)
    written = Result(facts, relative, labels, list(tested.classes), classifier.test_scores)
    write_page(out, config.get("report_videos", 0), classifier=shown_by, result=written)
    return facts


def _chose_on_val(config: Mapping[str, Any]) -> bool:
    callbacks: Sequence[Mapping[str, Any]] = list((config.get("callback") or {}).values())
    early_stop = any("EarlyStopping" in callback["_target_"] for callback in callbacks)
    return early_stop or Path(str(config.get("checkpoint") or "")).name == "best.ckpt"


def _print(result: Mapping[str, Any], folder: Path) -> None:
    """One row a protocol, then the folder on a line of its own."""
    table = Table(title=f"{result['dataset']['name']}, split {result['split']}", title_justify="left", title_style="")
    for column in ("protocol", "top-1", "95% interval", "top-5", "loss", "videos", "dead"):
        table.add_column(column, justify="left" if column == "protocol" else "right", no_wrap=True)
    for entry in result["results"]:
        metrics = entry["metrics"]
        videos = sum(c["num_videos"] for c in metrics["per_class"].values())
        top5 = "-" if metrics["top5"] is None else f"{metrics['top5']:.1%}"
        loss = "-" if metrics["loss"] is None else f"{metrics['loss']:.4f}"
        low, high = entry["intervals_95"]["top1"]
        figures = f"{metrics['top1']:.1%}", f"{low:.1%} to {high:.1%}", top5, loss
        table.add_row(entry["name"], *figures, str(videos), str(len(entry["dead_videos"])))
    # As wide as the table, whatever the terminal: a figure cut short is none.
    Console(width=Console(width=1000).measure(table).maximum).print(table)
    if seen := result["dataset"]["num_trained_on"]:
        print(f"{seen:,} of the videos of this score were trained on")
    if result["selected_on_test"]:
        print("there is no test split: training was stopped or chosen on the videos of this score")
    print(f"run folder: {shown(folder)}", flush=True)
