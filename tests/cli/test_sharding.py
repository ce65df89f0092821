"""trainer=fsdp, with two processes on a CPU: each holds a half, and both train what two whole ones train."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

# Each process writes down how many weights it holds; those told to, stop in the middle of the second epoch.
SITE = """
import os, pathlib, signal
from videogn.training.progress import TrainingProgress as P
end = P.on_train_batch_end
def watch(self, trainer, classifier, *arguments):
    end(self, trainer, classifier, *arguments)
    parts = [getattr(p, "to_local", lambda p=p: p)().numel() for p in classifier.network.parameters()]
    pathlib.Path(f"part_{trainer.global_rank}").write_text(str(sum(parts)))
    if trainer.global_step == 13 and "STOP" in os.environ and trainer.global_rank == 0:
        os.kill(os.getpid(), signal.SIGTERM)
P.on_train_batch_end = watch
"""


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoint/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.turns
def test_half_of_the_weights_train_what_all_do(tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    """Also stopped and resumed, with clipping, with activations computed again, and where one process has a dead video alone."""
    root = tmp_path / "videos"
    subprocess.run(["cp", "-r", trained.parent / "motion", root], check=True)
    for video in sorted(root.glob("train/*/001.mp4"))[:4]:
        video.write_bytes(b"no video")
    (tmp_path / "sitecustomize.py").write_text(SITE)
    words = [*tiny, f"dataset.root={root}", "dataset=class_folder", "epochs=2", "batch_size=1", "dataset.max_bad_fraction=0.5"]
    words = [word for word in words if not word.startswith("dataset.num_")]
    words += ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.gradient_clip_val=0.5", "activation_memory=lean"]
    own = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    def train(*more: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "videogn", "train", *more]
        return subprocess.run(
            command, cwd=tmp_path, env={**own, **variables}, capture_output=True, text=True, timeout=300, check=False
        )

    whole = train(*words, "out=whole")
    assert whole.returncode == 0, whole.stderr
    (count,) = {int((tmp_path / f"part_{rank}").read_text()) for rank in range(2)}
    stopped = train(*words, "trainer=fsdp", "out=parts", STOP="1")
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    held = [int((tmp_path / f"part_{rank}").read_text()) for rank in range(2)]
    assert sum(held) == count
    assert max(held) < 0.55 * count
    resumed = train("resume=parts")
    assert resumed.returncode == 0, resumed.stderr

    expected = weights(tmp_path / "whole")
    for name, value in weights(tmp_path / "parts").items():
        # The norm of all gradients is a sum of sums there: a few roundings of 6e-8, over ten steps.
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)
    one, other = (json.loads((tmp_path / name / "result.json").read_text())["results"][0] for name in ("whole", "parts"))
    assert one["metrics"]["loss"] == pytest.approx(other["metrics"]["loss"], abs=1e-5)
    assert (tmp_path / "whole/quarantine.csv").read_text().count("\n") == 5


def test_an_average_of_divided_weights_is_refused(videogn: Callable, tiny: Sequence[str]) -> None:
    words = [*tiny, "trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", "callback=[best,ema]"]
    assert "callback=ema with trainer=fsdp: the average is of whole weights" in videogn("train", *words).refusal()
