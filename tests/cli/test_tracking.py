"""logger=wandb and logger=mlflow, offline: what they are told is what the run folder says."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from videogn.training import tracking
from videogn.types import InputError

Metrics = dict[tuple[str, int], float]  # of a name and a step


def train(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "videogn", "train", *words]
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@pytest.fixture
def stopping(tmp_path: Path) -> Path:
    """A folder whose sitecustomize.py sends a training SIGTERM after its seventh step."""
    folder = tmp_path / "stopping"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, signal\n"
        "from videogn.training.progress import TrainingProgress as P\n"
        "end = P.on_train_batch_end\n"
        "def stop(self, trainer, *arguments):\n"
        "    end(self, trainer, *arguments)\n"
        "    if trainer.global_step == 7: os.kill(os.getpid(), signal.SIGTERM)\n"
        "P.on_train_batch_end = stop\n"
    )
    return folder


def written(run: Path) -> Metrics:
    """Of metrics.csv."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(k, int(row["step"])): float(v) for row in rows for k, v in row.items() if v and k not in ("step", "epoch")}


def scored(run: Path) -> dict[str, float]:
    (entry,) = json.loads((run / "result.json").read_text())["results"]
    return {f"test/{entry['name']}/{k}": v for k, v in entry["metrics"].items() if isinstance(v, float)}


def records(log: bytes) -> Iterator[bytes]:
    """Of a file of W&B: seven bytes, then LevelDB's log in blocks of 32 KiB, whose records may lie in several."""
    at, whole = 7, b""
    while at + 7 <= len(log):
        if (left := 2**15 - at % 2**15) < 7:
            at += left
            continue
        size, kind = struct.unpack_from("<HB", log, at + 4)
        whole += log[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def in_wandb(file: Path) -> tuple[dict[str, Any], Metrics]:
    """The id and the configuration, and the metrics, of an offline run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]
    facts, metrics = {}, {}
    for data in records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        if record.HasField("run") and record.run.run_id:
            facts["id"], facts["name"] = record.run.run_id, record.run.display_name
        for update in record.config.update:
            facts[update.key] = json.loads(update.value_json)
        row = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
        metrics |= {(k, row["trainer/global_step"]): v for k, v in row.items() if "/" in k and k != "trainer/global_step"}
        metrics |= {(k, row["trainer/global_step"]): v for k, v in row.items() if k.startswith("lr-")}
    return facts, metrics


def in_mlflow(database: Path, run: str) -> tuple[dict[str, str], Metrics]:
    """Parameters, tags and status, and metrics, by SQL."""
    with closing(sqlite3.connect(database)) as tables:
        facts = dict(tables.execute("select key, value from params where run_uuid = ?", (run,)))
        facts |= dict(tables.execute("select key, value from tags where run_uuid = ?", (run,)))
        (facts["status"],) = tables.execute("select status from runs where run_uuid = ?", (run,)).fetchone()
        rows = tables.execute("select key, step, value from metrics where run_uuid = ?", (run,))
        return facts, {(key, step): value for key, step, value in rows if key != "epoch"}


@pytest.mark.turns
def test_wandb_is_told_what_the_run_folder_says_and_a_resumed_run_goes_on(
    tiny: Sequence[str], tmp_path: Path, stopping: Path
) -> None:
    words = [*tiny, "epochs=2", "logger=[csv,wandb]", "dataset.root=motion", "trainer.log_every_n_steps=1", "out=run"]
    offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    first = train(*words, folder=tmp_path, PYTHONPATH=f"{stopping}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", **offline)
    assert first.returncode == 128 + signal.SIGTERM, first.stderr
    second = train("resume=run", folder=tmp_path, **offline)
    assert second.returncode == 0, second.stderr

    run = tmp_path / "run"
    files = sorted(run.glob("wandb/offline-run-*/run-*.wandb"), key=lambda file: file.stat().st_mtime)
    (one, before), (other, after) = map(in_wandb, files)
    assert one["id"] == other["id"] == (run / "wandb_id.txt").read_text().strip()
    assert one["name"] == "run"
    assert one["optimizer"]["lr"] == 0.05
    assert one["norm"]["_target_"] == "videogn.norm.group_norm.GroupNorm"
    told = {name: value for name, value in (before | after).items() if not name[0].startswith("test/")}
    assert told == pytest.approx(written(run))
    assert {name for name, _ in told} >= {"train/loss_step", "train/loss_epoch", "val/top1", "lr-SGD/pg1"}
    assert {name: value for (name, _), value in after.items() if name.startswith("test/")} == scored(run)


@pytest.mark.turns
def test_jobs_at_a_time_are_runs_of_one_mlflow_database(tiny: Sequence[str], tmp_path: Path) -> None:
    words = [*tiny, "logger=[csv,mlflow]", "dataset.root=motion", "trainer.log_every_n_steps=1"]
    sweep = train(*words, "-m", "seed=0,1", "sweep=seeds", "hydra.launcher.num_parallel=2", folder=tmp_path)
    assert sweep.returncode == 0, sweep.stderr
    jobs = [path.parent for path in tmp_path.glob("runs/sweep/seeds/*/result.json")]
    assert len(jobs) == 2
    for job in jobs:
        run_id = (job / "mlflow_run_id.txt").read_text().strip()
        facts, told = in_mlflow(tmp_path / "mlflow.db", run_id)
        assert facts["mlflow.runName"] == job.name
        assert facts["sweep"] == "seeds"
        assert facts["optimizer/lr"] == "0.05"
        assert facts["status"] == "FINISHED"
        assert {key: value for key, value in told.items() if not key[0].startswith("test/")} == pytest.approx(written(job))
        assert {name: value for (name, _), value in told.items() if name.startswith("test/")} == scored(job)


def test_a_store_that_is_away_ends_a_training_before_it_begins(tiny: Sequence[str], tmp_path: Path, unused: str) -> None:
    words = [*tiny, "logger=[csv,mlflow]", f"logger.mlflow.tracking_uri={unused}", "dataset.root=motion", "out=run"]
    refused = train(*words, folder=tmp_path, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(f"videogn: error: logger=mlflow: {unused}: API request to ")
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_wandb_without_a_key_is_a_line(tiny: Sequence[str], tmp_path: Path) -> None:
    words = [*tiny, "logger=[csv,wandb]", "dataset.root=motion", "out=run"]
    refused = train(*words, folder=tmp_path, HOME=str(tmp_path), WANDB_MODE="online", WANDB_API_KEY="")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        "videogn: error: logger=wandb: No API key configured. Use `wandb login` to log in; "
        "`wandb login` first, or set WANDB_MODE=offline"
    )


@pytest.mark.filterwarnings("ignore")  # of mlflow's own making
def test_a_store_that_goes_away_is_told_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    logger = tracking.MLflow(str(tmp_path), tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    logger.log_metrics({"train/loss": 1.0}, 1)
    requests: list[Any] = []

    def refuse(*arguments: Any, **keywords: Any) -> None:
        requests.append(arguments)
        raise mlflow.MlflowException("the store is\naway.")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", refuse)
    monkeypatch.setattr(mlflow.MlflowClient, "set_terminated", refuse)
    with pytest.warns(
        UserWarning, match="^logger=mlflow: the store is away; it is told nothing more, metrics.csv has everything$"
    ):
        logger.log_metrics({"train/loss": 2.0}, 2)
    logger.log_metrics({"train/loss": 3.0}, 3)
    logger.finalize("success")
    assert len(requests) == 1


@pytest.mark.parametrize(("logger", "package"), [(tracking.WeightsAndBiases, "wandb"), (tracking.MLflow, "mlflow")])
def test_one_that_is_not_installed_is_a_line(
    logger: Callable, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    with pytest.raises(InputError, match=rf"^logger={package}: it is not installed; pip install 'videogn\[{package}\]'$"):
        logger(save_dir=str(tmp_path))


@pytest.fixture
def unused() -> str:
    """The address of a port at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
