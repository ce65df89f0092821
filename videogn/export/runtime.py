"""An artifact that is open in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from videogn.types import Findings, InputError


class Runtime:
    """Runs an artifact in a child process; a context manager.

    Args:
        name: of the runtime, for messages: "ONNX Runtime 1.32.0".
        opener: dotted name of a function (path, threads, trust) -> (clips -> scores).
        path: of the artifact.
        threads: of the runtime.
        trust: whether an artifact that holds native code may be opened.

    Raises:
        InputError: the runtime refuses the artifact.
        Findings: it crashes.
    """

    def __init__(self, name: str, opener: str, path: Path, threads: int, trust: bool = False) -> None:
        self.name = name
        self.threads = threads
        self._folder = tempfile.TemporaryDirectory(prefix="videogn-")
        command = [sys.executable, "-m", "videogn.export.child", opener, str(path), str(threads), "trust" if trust else "-"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._errors = Path(self._folder.name, "errors.txt")
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True
            )
        try:
            self._read("loading it")
        except BaseException:
            self.close()
            raise

    def scores(self, clips: np.ndarray, batch: int) -> np.ndarray:
        """(N, K) of clips (N, ...), `batch` at a time."""
        source, target = Path(self._folder.name, "clips.npy"), Path(self._folder.name, "scores.npy")
        np.save(source, clips)
        self._ask({"run": str(source), "batch": batch, "to": str(target)}, _described(clips, batch))
        return np.load(target)

    def seconds(self, clips: np.ndarray, repeats: int) -> list[float]:
        """How long each of `repeats` runs of these clips took."""
        source = Path(self._folder.name, f"timed_{len(clips)}.npy")
        if not source.exists():
            np.save(source, clips)
        return self._ask({"time": str(source), "repeats": repeats}, _described(clips, len(clips)))["seconds"]

    def peak_bytes(self) -> int:
        """Largest resident size of the process: the runtime, the network and all that it ran."""
        return self._ask({"peak": True}, "answering")["bytes"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _ask(self, request: dict[str, Any], what: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer, which does not come either, says why
        return self._read(what)

    def _read(self, what: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Findings(f"{self.name} {self._end()} when {what}")
        answer = json.loads(line)
        if "error" not in answer:
            return answer
        if answer["kind"] == InputError.__name__:  # of what it was given, and not of how it works
            raise InputError(answer["error"])
        raise Findings(f"{self.name} fails when {what}: {answer['error']}")

    def _end(self) -> str:
        """How the process ended."""
        status = self._process.wait()
        if status < 0:
            return f"crashed ({signal.Signals(-status).name})"
        said = self._errors.read_text(encoding="utf-8", errors="backslashreplace").strip().splitlines()
        return f"ended with status {status}{f' ({said[-1]})' if said else ''}"


def _described(clips: np.ndarray, batch: int) -> str:
    return f"running clips of {' x '.join(map(str, clips.shape[1:]))}, {batch} at a time"
