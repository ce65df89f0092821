"""How far batch norm in training is from batch norm in inference: the same weights, tested with both kinds of statistics.

python scripts/study/batch_norm_gap.py runs/sweep/batch_size --out gap_motion.csv

Of every finished job of the sweep whose norms keep running statistics, the tested videos, one clip each, are scored three times:
as in inference, with the running averages; with the statistics of random batches of the training's size; and with those of
batches of one class each. The videos are the same in all three, those that make whole batches of their class. Weights and
running averages are left as they are. A norm without running statistics would have three equal rows.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from torch import nn

from videogn.cli.data import read_data
from videogn.configuration import instantiate
from videogn.prediction.load import load_network, stored
from videogn.sweep.job import Job, State
from videogn.sweep.ledger import read_jobs
from videogn.training.checkpoint import read_checkpoint
from videogn.training.datamodule import ClipData
from videogn.transform.functional import to_input

KEYS = ("norm", "conv", "batch_size", "batch_composition", "seed")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a .csv")
    options = parser.parse_args()
    rows = []
    for job in read_jobs(options.sweep).jobs:
        if job.state() is State.DONE:
            rows += measured(job)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("job", *KEYS, "statistics", "top1", "loss"))
        writer.writeheader()
        writer.writerows(rows)


def measured(job: Job) -> list[dict[str, object]]:
    """The three rows of a job; none where its norms keep no running statistics."""
    checkpoint = read_checkpoint(job.folder)
    config = stored(checkpoint)
    network = load_network(checkpoint, config)
    norms = [module for module in network.modules() if getattr(module, "running_mean", None) is not None]
    if not norms:
        return []
    inputs, labels = tested_clips(config)
    size = int(config.batch_size)
    mixed, one_class = batches(labels.numpy(), size)
    if not mixed:
        print(f"{job.folder.name}: a class has fewer tested videos than a batch, {size}: there are no batches of it", flush=True)
        return []
    ways = {"running averages": (False, mixed), "of mixed batches": (True, mixed), "of one class": (True, one_class)}
    rows = []
    for name, (is_training, parts) in ways.items():
        set_training(norms, is_training)
        with torch.no_grad():
            logits = torch.cat([network(inputs[part]) for part in parts])
        true = labels[np.concatenate(parts)]
        top1 = float((logits.argmax(1) == true).float().mean())
        loss = float(nn.functional.cross_entropy(logits, true))
        values = {key: job.values.get(key, "") for key in KEYS}
        rows.append({"job": job.folder.name, **values, "statistics": name, "top1": top1, "loss": loss})
        print(
            job.folder.name, values, name, f"top-1 {top1:.3f}, loss {loss:.3f}, {len(true)} of {len(labels)} videos", flush=True
        )
    return rows


def batches(labels: np.ndarray, size: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rows of batches of all classes, and of one class each: of the same videos, the classes' rests left out.

    Empty where a class has fewer videos than a batch: without it the classes would be others.
    """
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    members = [order[labels[order] == label] for label in np.unique(labels)]
    if min(map(len, members)) < size:
        return [], []
    one_class = [own[start : start + size] for own in members for start in range(0, len(own) - size + 1, size)]
    shuffled = rng.permutation(np.concatenate(one_class))
    return np.split(shuffled, len(one_class)), one_class


def set_training(norms: list[nn.Module], is_training: bool) -> None:
    """Take the statistics from the batch, and move no running average."""
    for norm in norms:
        norm.train(is_training)
        norm.momentum = 0.0  # pyright: ignore[reportAttributeAccessIssue]


def tested_clips(config) -> tuple[torch.Tensor, torch.Tensor]:
    """One clip of every tested video that can be read, (V, 3, T, H, W), and its class."""
    _, manifest = read_data(config.dataset)
    protocol = instantiate(config.validation)
    data = ClipData(manifest, instantiate(config.decoder), {"one_clip": protocol}, protocol, 8, 0)
    inputs, labels = [], []
    for (batch,) in data.test_dataloader():
        inputs.append(to_input(batch.clips, batch.flips, config.mean, config.std, batch.appearance))
        labels.append(batch.labels)
    return torch.cat(inputs), torch.cat(labels)


if __name__ == "__main__":
    main()
