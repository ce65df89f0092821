"""A process that opens an artifact in its own runtime: a crash there costs this process alone, and its memory is measured alone.

Started as `python -m videogn.export.child OPENER PATH THREADS TRUST`, it answers once when the artifact is open, and then each
request; both are lines of JSON:

                                                           {}
    {"run": "clips.npy", "batch": 4, "to": "scores.npy"}   {}
    {"time": "clips.npy", "repeats": 3}                    {"seconds": [0.021, 0.019, 0.02]}
    {"peak": true}                                         {"bytes": 310378496}
    what fails                                             {"error": "one line", "kind": "InputError"}
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# Clips, as the artifact takes them, to scores (N, K).
Run = Callable[[np.ndarray], np.ndarray]


def serve() -> None:
    """Arguments of the process: a function (path, threads, trust) -> Run by its dotted name, and what it is given."""
    opener, path, threads, trust = sys.argv[1:]
    # Runtimes print, from C++ too: what they say goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answered(work: Callable[[], dict[str, Any]]) -> bool:
        try:
            content = work()
        except Exception as error:  # a runtime raises anything, and whoever asked gets it as one line
            content = {"error": " ".join(str(error).split()) or type(error).__name__, "kind": type(error).__name__}
        print(json.dumps(content), file=answers, flush=True)
        return "error" not in content

    run: list[Run] = []

    def load() -> dict[str, Any]:
        module, _, function = opener.rpartition(".")
        run.append(getattr(importlib.import_module(module), function)(Path(path), int(threads), trust == "trust"))
        return {}

    if not answered(load):
        return
    for line in sys.stdin:
        answered(lambda line=line: _answer(run[0], json.loads(line)))


def _answer(run: Run, request: dict[str, Any]) -> dict[str, Any]:
    if "peak" in request:
        return {"bytes": peak_bytes()}
    if "run" in request:
        clips = np.load(request["run"])
        parts = [run(clips[start : start + request["batch"]]) for start in range(0, len(clips), request["batch"])]
        np.save(request["to"], np.concatenate(parts))
        return {}
    clips = np.load(request["time"])
    seconds = []
    for _ in range(request["repeats"]):
        start = time.perf_counter()
        run(clips)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds}


def filled(clips: np.ndarray, batch: int) -> np.ndarray:
    """Clips up to a multiple of `batch`: the last one repeated."""
    missing = -len(clips) % batch
    return np.concatenate([clips, np.repeat(clips[-1:], missing, axis=0)]) if missing else clips


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    try:
        # Not getrusage: on Linux its figure outlives exec, and starts as that of the process that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    serve()
