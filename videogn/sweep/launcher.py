"""Each job of a multirun in a process of its own: `python -m videogn train ...`."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from rich.table import Table

from videogn.configuration import config_hash, prepared_dataset, quoted
from videogn.types import Findings, Stopped

_log = logging.getLogger(__name__)


@dataclass
class Job:
    """One combination of values.

    Attributes:
        overrides: its command line.
        folder: its run folder, named by the hash of its configuration.
        status: of its process; None before it ran.
        seconds: that it took here.
    """

    overrides: list[str]
    folder: Path
    status: int | None = None
    seconds: float = 0.0

    def result(self) -> dict[str, Any] | None:
        """result.json, if the job has got that far."""
        file = self.folder / "result.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


class ProcessLauncher(Launcher):
    """Runs the jobs one after the other; a job that fails is named at once and the others go on.

    A job whose folder holds a result is done and is not run again; one that was interrupted goes on from its last.ckpt.
    What a job prints goes to log.txt in its folder.
    """

    def __init__(self) -> None:
        self._context: HydraContext | None = None
        self._config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context = hydra_context
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        jobs = [self._job(list(overrides)) for overrides in job_overrides]
        varying = {o for job in jobs for o in job.overrides} - set.intersection(*(set(job.overrides) for job in jobs))
        console = Console(stderr=True, highlight=False)
        for number, job in enumerate(jobs, start=1):
            name = " ".join(o for o in job.overrides if o in varying) or "the only job"
            if job.result() is not None:
                console.print(f"job {number}/{len(jobs)}  {name}  done before", markup=False, soft_wrap=True)
                job.status = 0
                continue
            console.print(f"job {number}/{len(jobs)}  {name}  {job.folder}", markup=False, soft_wrap=True)
            self._run(job)
            if job.status:
                last = _last_line(job.folder / "log.txt")
                console.print(f"  failed with status {job.status}: {last}", markup=False, soft_wrap=True)
        Console().print(_table(jobs, varying))
        failed = sum(1 for job in jobs if job.status)
        if failed:
            raise Findings(f"{failed} of {len(jobs)} jobs failed; the same command runs them again and skips what is done")
        return []

    def _job(self, overrides: list[str]) -> Job:
        assert self._context is not None
        assert self._config is not None
        config = self._context.config_loader.load_sweep_config(self._config, overrides)
        name = config.sweep or "_".join(_swept_keys(self._config)) or "single"
        with open_dict(config):
            del config["hydra"]
        # Written now, if it is data that we write: a job is named by the content of its data.
        prepared_dataset(config.dataset)
        with open_dict(config):
            config.out = ""  # where a job lies does not say what it is
        identity = config_hash(OmegaConf.to_container(config, resolve=True))  # pyright: ignore[reportArgumentType]
        return Job(overrides, Path("runs") / "sweep" / name / identity)

    def _run(self, job: Job) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        last = job.folder / "checkpoint" / "last.ckpt"
        arguments = [f"resume={job.folder}"] if last.is_file() else [*job.overrides, f"out={job.folder}"]
        command = [sys.executable, "-m", "videogn", "train", *quoted(arguments)]
        start = time.monotonic()
        with (job.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            try:
                job.status = process.wait()
            except KeyboardInterrupt:
                # The terminal has told the job too; it saves its checkpoint first.
                process.wait()
                raise Stopped(signal.SIGINT, "the multirun; the same command goes on with it") from None
        job.seconds = time.monotonic() - start


def _swept_keys(config: DictConfig) -> list[str]:
    """The keys on the command line that have several values."""
    words = [str(word).split("=", 1) for word in config.hydra.overrides.task]
    return [key for key, *value in words if value and ("," in value[0] or "(" in value[0])]


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "no output"


def _table(jobs: Sequence[Job], varying: set[str]) -> Table:
    keys = list(dict.fromkeys(o.split("=", 1)[0] for job in jobs for o in job.overrides if o in varying))
    table = Table(title=None)
    for column in (*keys, "state", "protocol", "top-1", "loss", "time"):
        table.add_column(column, justify="right" if column in ("top-1", "loss", "time") else "left")
    for job in jobs:
        values = dict(o.split("=", 1) for o in job.overrides if "=" in o)
        state = "done" if job.status == 0 else f"failed, exit {job.status}"
        row = [values.get(key, "") for key in keys]
        result = job.result() or {"results": [], "timing": {}}
        seconds = result["timing"].get("total_seconds")
        for entry in result["results"] or [None]:
            facts = ["", "", ""]
            if entry is not None:
                metrics = entry["metrics"]
                loss = metrics["loss"]
                facts = [entry["name"], f"{metrics['top1']:.1%}", "" if loss is None else f"{loss:.3f}"]
            table.add_row(*row, state, *facts, "" if seconds is None else f"{seconds:.0f} s")
    return table
