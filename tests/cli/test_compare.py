"""videogn compare, on a run and its evaluation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np


def test_a_run_and_another(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    same = videogn("compare", str(trained), str(trained), "--output", "json")
    assert same.status == 0
    (entry,) = json.loads(same.out)
    assert (entry["difference"], entry["p_value"], entry["lost"], entry["gained"]) == (0.0, 1.0, [], [])

    # Another that answers every video rightly, one of a path that is no UTF-8.
    for folder in (tmp_path / "one", tmp_path / "other"):
        shutil.copytree(trained, folder)
        arrays = dict(np.load(folder / "scores.npz"))
        arrays["paths"] = arrays["paths"].astype("U99")
        arrays["paths"][0] = os.fsdecode(b"caf\xe9.mp4")
        if folder.name == "other":
            arrays["ten_clip/logits"][:] = 0
            arrays["ten_clip/logits"][np.arange(len(arrays["labels"])), :, arrays["labels"]] = 9
        else:
            arrays["ten_clip/logits"][0] = np.nan
        np.savez(folder / "scores.npz", **arrays)
    # In a process of its own, with a terminal that takes nothing but text.
    command = [sys.executable, "-m", "videogn", "compare", "one", "other"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"and 100.0%" in done.stdout
    assert rb"gained: caf\udce9.mp4: no answer -> " in done.stdout


def test_compare_refuses(videogn: Callable, trained: Path, tmp_path: Path) -> None:
    assert "no result" in videogn("compare", str(trained), str(tmp_path)).refusal()
    assert "the following arguments are required: second" in videogn("compare", str(trained)).refusal()
    videogn("evaluate", f"checkpoint={trained}", "evaluation=one_clip", f"out={tmp_path}/one", "num_workers=0")
    message = videogn("compare", str(trained), f"{tmp_path}/one").refusal()
    assert "ten_clip of the first result and one_clip of the second differ in num_clips 10 and 1" in message
