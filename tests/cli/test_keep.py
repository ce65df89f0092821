"""callback=keep: checkpoints that stay, each as good as any."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch


def kept(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoint").iterdir())


@pytest.mark.turns
def test_every_second_epoch_stays(videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    words = [*tiny, f"dataset.root={trained.parent}/motion", "epochs=5", "callback=[best,keep]", "callback.keep.every_n_epochs=2"]
    words.append("+trainer.check_val_every_n_epoch=3")  # it need not be an epoch with a validation
    outcome = videogn("train", *words, f"out={tmp_path}/run")
    assert outcome.status == 0, outcome.err
    assert kept(tmp_path / "run") == ["best.ckpt", "last.ckpt", "step_000010.ckpt", "step_000020.ckpt"]
    # Training from there on is what it was: the same weights at the end.
    middle = tmp_path / "run/checkpoint/step_000010.ckpt"
    again = tmp_path / "again/checkpoint"
    again.mkdir(parents=True)
    middle.rename(again / middle.name)
    for name in ("config.yaml", "manifest.csv"):
        source = tmp_path / "run" / name
        if source.exists():
            (tmp_path / "again" / name).write_bytes(source.read_bytes())
    assert videogn("train", f"resume={again / middle.name}").status == 0
    one, other = (
        torch.load(tmp_path / run / "checkpoint/last.ckpt", weights_only=True)["state_dict"] for run in ("run", "again")
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    outcome = videogn("evaluate", f"checkpoint={tmp_path}/run/checkpoint/step_000020.ckpt", f"out={tmp_path}/e")
    assert outcome.status == 0, outcome.err


@pytest.mark.turns
def test_the_best_two_stay(videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    rule = [
        "callback.keep.every_n_epochs=1",
        "callback.keep.save_top_k=2",
        "callback.keep.monitor=val/loss",
        "callback.keep.mode=min",
    ]
    words = [*tiny, f"dataset.root={trained.parent}/motion", "epochs=5", "callback=[best,keep]", *rule]
    outcome = videogn("train", *words, f"out={tmp_path}/run")
    assert outcome.status == 0, outcome.err
    lines = (tmp_path / "run/metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    losses = {
        int(row["step"]) + 1: float(row["val/loss"])
        for row in (dict(zip(names, line.split(","), strict=True)) for line in lines[1:])
        if row["val/loss"]
    }
    best = sorted(losses, key=losses.__getitem__)[:2]
    assert kept(tmp_path / "run") == sorted(["best.ckpt", "last.ckpt", *(f"step_{step:06d}.ckpt" for step in best)])
    assert json.loads((tmp_path / "run/result.json").read_text())["status"] == "done"


def test_beside_one_that_watches_the_same(videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    rule = ["callback.keep.every_n_epochs=1", "callback.keep.save_top_k=3", "callback.keep.monitor=val/top1"]
    words = [*tiny, f"dataset.root={trained.parent}/motion", "callback=[best,lr_monitor,keep]", *rule]
    outcome = videogn("train", *words, f"out={tmp_path}/run")
    assert outcome.status == 0, outcome.err
    assert kept(tmp_path / "run") == ["best.ckpt", "last.ckpt", "step_000005.ckpt"]
