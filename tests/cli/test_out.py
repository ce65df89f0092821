"""out=DIR where DIR holds a training."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path


def test_a_training_is_not_replaced_by_another(videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words = ["train", *tiny, f"dataset.root={trained.parent}/motion", f"out={run}"]
    outcome = videogn(*words)
    assert outcome.status == 2
    line = outcome.err.splitlines()[-1]
    assert line.startswith(f"videogn: error: out={run}: holds a training, which this would replace; go on with resume={run}")
    (run / "result.json").unlink()  # one that was stopped
    del before[run / "result.json"]
    assert videogn(*words).status == 2
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
