"""compile and memory_format, as a user sets them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

COMMAND = [sys.executable, "-m", "videogn", "train"]


def config_of(run: Path) -> Any:
    return yaml.safe_load((run / "config.yaml").read_text())


@pytest.mark.turns
def test_what_was_measured_is_what_a_resumed_run_takes(tiny: Sequence[str], tmp_path: Path) -> None:
    words = [*tiny, "dataset.root=motion", "memory_format=auto", "out=run"]
    done = subprocess.run([*COMMAND, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = re.findall(r"^memory_format: (\w+), in which a step takes 0\.\d\d times what the other takes$", done.stderr, re.M)
    assert config_of(tmp_path / "run")["memory_format"] == line
    again = subprocess.run(
        [*COMMAND, *words[:-1], "trainer.accelerator=cpu", "trainer.devices=2"], cwd=tmp_path, capture_output=True, text=True
    )
    assert again.returncode == 2
    assert "memory_format=auto over 2 devices: they must agree; measure with trainer.devices=1" in again.stderr


@pytest.mark.turns
def test_a_compiled_training_learns_what_another_does(tiny: Sequence[str], tmp_path: Path) -> None:
    """Also where activations are computed again, and running statistics move once all the same."""
    small = ["model.depths=[1]", "model.widths=[32]", "model.temporal_strides=[1]", "model.spatial_strides=[2]"]
    words = [*tiny, *small, "dataset.root=motion", "norm=batch_norm"]
    found = []
    for name, more in (("plain", []), ("compiled", ["compile=true", "activation_memory=lean"])):
        command = [*COMMAND, *words, *more, f"out={name}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(torch.load(tmp_path / name / "checkpoint/last.ckpt", weights_only=True)["state_dict"])
    plain, compiled = found
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        # Five steps, of gradients that are sums of 10^4 terms in another order: a hundred roundings of 1e-7, twice.
        torch.testing.assert_close(compiled[name], value, atol=2e-5 * value.abs().max().item(), rtol=0)
