"""Run folders without a training: a small one with hostile names, and one of 400 classes."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from videogn.evaluation.metrics import classification_metrics
from videogn.evaluation.multi_view import Scores
from videogn.evaluation.result import SCHEMA, write_scores
from videogn.report.swept import SweptJob

HOSTILE = ["jump", "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "run & hide", "</script><b>bold"]
ROOT = Path(__file__).parents[2]
CONFIG = {
    "clip_length": 8,
    "frame_stride": 2,
    "crop_size": 64,
    "batch_size": 4,
    "epochs": 3,
    "seed": 7,
    "out": "/runs/a",
    "norm": {"_target_": "videogn.norm.group_norm.GroupNorm", "num_groups": 16},
    "model": {"_target_": "videogn.model.resnet3d.ResNet3D", "block": "bottleneck", "depths": [3, 4, 6, 3]},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.05},
    "note": "</pre><script>alert(3)</script>",
}


def written(
    folder: Path,
    classes: Sequence[str],
    labels: Sequence[int],
    answers: Sequence[int | None],
    confidence: Sequence[float] | None = None,
    protocols: Sequence[str] = ("ten_clip",),
    config: Mapping[str, Any] | None = CONFIG,
    curves: int = 3,
    **facts: Any,
) -> Path:
    """Write a finished run into `folder`.

    Args:
        labels, answers: true and answered class of every video; an answer is None for a dead one.
        confidence: the probability of each answer; None: 0.8.
        curves: epochs in metrics.csv, of two steps each; 0: no file.
        facts: of result.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    num_classes, target = len(classes), np.array(labels)
    views = np.full((len(labels), 1, num_classes), np.nan, np.float32)
    for row, answer in enumerate(answers):
        if answer is not None:
            chance = 0.8 if confidence is None else confidence[row]
            views[row] = np.log((1 - chance) / (num_classes - 1))
            views[row, 0, answer] = np.log(chance)
    scores = Scores(views, ())
    write_scores(folder, dict.fromkeys(protocols, scores), [f"c/{row}.mp4" for row in range(len(labels))], target, classes)
    metrics = classification_metrics(scores, target, classes)
    dead = [{"path": f"c/<i>{row}.mp4", "reason": "no <video>"} for row, answer in enumerate(answers) if answer is None]
    result = {
        "schema": SCHEMA,
        "command": "train",
        "directory": "/home/<b>",
        "command_line": "videogn train norm=group_norm 'note=<b>'",
        "config_hash": "abc",
        "versions": {"videogn": "0", "torch": "2"},
        "hardware": {"machine": "m", "cpus": 2, "gpus": []},
        "dataset": {"name": "a <b> set", "root": "/data/<b>", "manifest_sha256": "00", "num_videos": 9, "num_dead": len(dead)},
        "split": "test",
        "selected_on_test": True,
        "results": [
            {
                "name": name,
                "protocol": {"aggregation": "softmax_mean", "num_clips": 10 - index},
                "protocol_hash": f"9f8e{index or ''}",
                "metrics": metrics,
                "intervals_95": {"top1": [0.125, 0.875]},
                "dead_videos": dead,
            }
            for index, name in enumerate(protocols)
        ],
        "timing": {"total_seconds": 3.5},
        "peak_memory_bytes": 2**30,
        **facts,
    }
    (folder / "result.json").write_text(json.dumps(result))
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))
    if curves:
        with (folder / "metrics.csv").open("w", newline="") as file:
            rows = csv.DictWriter(
                file, ["epoch", "lr-SGD", "step", "train/loss_epoch", "train/top1_epoch", "val/loss", "val/top1"]
            )
            rows.writeheader()
            for epoch in range(curves):
                step = 2 * epoch + 1
                rows.writerow({"lr-SGD": 0.1 / (epoch + 1), "step": step})
                done = {"epoch": epoch, "step": step}
                rows.writerow({**done, "val/loss": 2.5 / (epoch + 1), "val/top1": 1 - 0.75 / (epoch + 1)})
                rows.writerow({**done, "train/loss_epoch": 2.0 / (epoch + 1), "train/top1_epoch": 1 - 0.8 / (epoch + 1)})
    return folder


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    return written


@pytest.fixture
def hostile_run(tmp_path: Path) -> Path:
    """Eight videos, two of them dead, four answered wrongly: 2 of 8 are right."""
    labels = [0, 0, 1, 1, 2, 3, 4, 4]
    return written(tmp_path / "run", HOSTILE, labels, [0, 1, 1, 2, 1, 0, None, None], protocols=("ten_clip", "<b>dense"))


@pytest.fixture(scope="session")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kinetics' 400 classes, 5 to 11 videos each; a class is taken for its planted partner, or now and then for another."""
    classes = (ROOT / "data" / "kinetics400.txt").read_text(encoding="utf-8").splitlines()
    rng = np.random.default_rng(3)
    partner = np.empty(400, np.int64)
    pairs = rng.permutation(400).reshape(-1, 2)
    partner[pairs[:, 0]], partner[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    labels = np.repeat(np.arange(400), 5 + np.arange(400) % 7)
    draw, other = rng.random(len(labels)), rng.integers(400, size=len(labels))
    hard = 0.55 * rng.beta(1.2, 1.8, 400)[labels]
    answers = np.where(draw < hard, partner[labels], np.where(draw < hard + 0.12, other, labels))
    confidence = np.clip(rng.beta(4, 2, len(labels)), 0.05, 0.99)
    folder = tmp_path_factory.mktemp("large")
    return written(folder, classes, labels.tolist(), answers.tolist(), confidence.tolist(), curves=40)


@pytest.fixture
def sweep_jobs() -> Callable[..., list[SweptJob]]:
    """Done jobs of every combination of values; top-1 falls by a hundredth from one to the next, from 0.95."""

    def make(
        values: Mapping[str, Sequence[str]], tied: Callable[[dict[str, str]], dict[str, str]] = lambda _: {}
    ) -> list[SweptJob]:
        jobs = []
        for number, combination in enumerate(itertools.product(*values.values())):
            chosen = dict(zip(values, combination, strict=True))
            metrics = {"top1": 0.95 - number / 100, "top5": None, "loss": 0.5 + number, "mean_class": 0.5, "macro_f1": None}
            result = {
                "results": [{"name": "ten_clip", "protocol_hash": "abc", "metrics": {**metrics, "calibration_error": 0.1}}],
                "dataset": {"name": "motion"},
                "split": "test",
                "selected_on_test": False,
                "hardware": {"cpus": 2, "gpus": []},
                "versions": {"videogn": "0.1.0", "torch": "2.14.1"},
                "timing": {"total_seconds": 60.0 + number, "train_clips_per_second": 100.0},
                "peak_memory_bytes": 2**20 * (800 + number),
            }
            jobs.append(SweptJob(f"{number:012x}", {**chosen, **tied(chosen)}, "done", result, {"top1": 0.9, "loss": 0.3}))
        return jobs

    return make
