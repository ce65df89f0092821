"""Two processes with batches of b are one with a batch of 2 b: the same clips, and under group norm the same weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

STEPS = 20
# Of 64 bits, with room for what 20 steps of momentum make of 1e-16: a gradient is a sum of some 10^4 products, in two orders.
TOLERANCE = 1e-9  # 1.7e-12 was seen


@pytest.mark.turns
@pytest.mark.parametrize("more", [[], ["multigrid.cycle_ends=[0.8]", "multigrid.short_cycle=[0.5]", "optimizer.lr=0.01"]])
def test_under_group_norm_they_are_one(tmp_path: Path, more: list[str]) -> None:
    """After 20 steps of the clips, crops and flips of a run; dropout and mixing are off."""
    weights = []
    for devices in (1, 2):
        command = [
            *(sys.executable, "-m", "videogn", "train", f"trainer.devices={devices}", "trainer.accelerator=cpu", "epochs=4"),
            *(f"batch_size={4 // devices}", "trainer.precision=64-true", "optimizer.lr=0.05", "schedule=constant"),
            *("dataset.root=motion", "dataset.num_train=2", "dataset.num_val=1", "dataset.num_test=1", "num_workers=0"),
            *("clip_length=4", "crop_size=32", "train_short_side=[32,36]", "test_short_side=34", "evaluation=one_clip"),
            *("logger=csv", "callback=[best]", "report_videos=0", f"out={devices}", *more),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        checkpoint = torch.load(tmp_path / f"{devices}" / "checkpoint" / "last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == STEPS
        weights.append(checkpoint["state_dict"])
    for name, value in weights[0].items():
        assert value.dtype == torch.float64
        assert (weights[1][name] - value).abs().max() <= TOLERANCE * value.abs().max(), name
