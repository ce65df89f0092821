"""Weights & Biases and MLflow: one run of theirs for one run folder, also where that is resumed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

from videogn.types import InputError


class WeightsAndBiases(WandbLogger):
    """Lightning's, whose run is found again by its id, which stands in `save_dir`/wandb_id.txt.

    Its own files are in `save_dir`/wandb. Without a network, with WANDB_MODE=offline, `wandb sync` sends them later.

    Args:
        save_dir: the run folder.
        name: of the run; None: that of its folder.
        arguments: of Lightning's, and of `wandb.init`: project, group, tags, entity, ...

    Raises:
        InputError: wandb is not installed, or refuses to begin a run, as it does without a key.
    """

    def __init__(self, save_dir: str, name: str | None = None, **arguments: Any) -> None:
        self._kept = Path(save_dir) / "wandb_id.txt"
        with _needs("wandb"):
            super().__init__(name=name or Path(save_dir).name, save_dir=save_dir, id=_read(self._kept), **arguments)
        if self._wandb_init.get("anonymous") is None:  # wandb 0.31 warns where it is given, whatever its value
            self._wandb_init.pop("anonymous", None)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            import wandb

            try:
                self._kept.write_text(f"{super().experiment.id}\n")
            except wandb.Error as error:
                raise InputError(f"logger=wandb: {_line(error)}; `wandb login` first, or set WANDB_MODE=offline") from None
        return self._experiment

    def close(self, exit_code: int) -> None:
        """End the run; else the next training of this process would be written into it."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=exit_code)
            self._experiment = None


class MLflow(MLFlowLogger):
    """Lightning's, whose run is found again by its id, which stands in `save_dir`/mlflow_run_id.txt.

    A store that cannot be reached ends a training before it begins, and none that has begun: it is told nothing more then.
    A request is repeated three times, in 13 s, where MLFLOW_HTTP_REQUEST_MAX_RETRIES does not say otherwise; MLflow's own seven
    take four minutes, in which training would stand still.

    Args:
        save_dir: the run folder.
        run_name: None: that of the folder.
        tracking_uri: of the store; None: what MLflow itself takes, by MLFLOW_TRACKING_URI or mlflow.db in the current folder.
        tags: of the run, those left out that are None.
        arguments: of Lightning's: experiment_name, log_model, artifact_location, ...

    Raises:
        InputError: MLflow is not installed, or its store refuses to begin a run.
    """

    def __init__(
        self,
        save_dir: str,
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        self._kept = Path(save_dir) / "mlflow_run_id.txt"
        with _needs("mlflow"):
            import mlflow

        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        uri = tracking_uri or mlflow.get_tracking_uri()
        with self._begins(uri):
            super().__init__(
                run_name=run_name or Path(save_dir).name,
                tracking_uri=uri,
                tags={key: value for key, value in (tags or {}).items() if value is not None},
                run_id=_read(self._kept),
                **arguments,
            )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if not self._initialized:
            with self._begins(self._tracking_uri):
                self._make_experiment()
                super().experiment  # noqa: B018 - begins the run
            self._kept.write_text(f"{self._run_id}\n")
        return self._mlflow_client

    def log_hyperparams(self, params: Any) -> None:
        # Parameters of a run that is there cannot change, and where a resumed one runs may.
        if not self._kept.is_file():
            super().log_hyperparams(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with self._goes_on():
            super().log_metrics(metrics, step)

    def finalize(self, status: str = "success") -> None:
        with self._goes_on():
            super().finalize(status)

    def _make_experiment(self) -> None:
        """Which another job of the sweep may do at the same time."""
        from mlflow.exceptions import MlflowException

        if self._mlflow_client.get_experiment_by_name(self._experiment_name) is None:
            try:
                self._mlflow_client.create_experiment(self._experiment_name, self._artifact_location)
            except MlflowException:
                if self._mlflow_client.get_experiment_by_name(self._experiment_name) is None:
                    raise

    @contextmanager
    def _begins(self, uri: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        # Two processes that make the tables of one new file at a time break it.
        path = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
        try:
            with FileLock(path.with_name(f".{path.name}.lock")) if path else nullcontext():
                yield
        except (MlflowException, OSError) as error:
            raise InputError(f"logger=mlflow: {uri}: {_line(error)}") from None

    @contextmanager
    def _goes_on(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            rank_zero_warn(f"logger=mlflow: {_line(error)}; it is told nothing more, metrics.csv has everything")
            self.log_metrics = self.finalize = _nothing


@contextmanager
def tracked(loggers: Sequence[Any], config: Mapping[str, Any]) -> Iterator[None]:
    """Around a training and its test: the run of each tracker begins with the resolved configuration, and ends.

    The loggers whose files lie beside config.yaml are not told.

    Raises:
        InputError: a tracker refuses.
    """
    for tracker in _trackers(loggers):
        tracker.log_hyperparams(config)
    exit_code = 1
    try:
        yield
        exit_code = 0
    finally:
        for logger in loggers:
            if isinstance(logger, WeightsAndBiases):
                logger.close(exit_code)


def log_results(loggers: Sequence[Any], results: Sequence[Mapping[str, Any]], step: int) -> None:
    """The metrics of the test, as test/PROTOCOL/METRIC.

    Args:
        results: of result.json.
    """
    metrics = {
        f"test/{entry['name']}/{key}": value
        for entry in results
        for key, value in entry["metrics"].items()
        if isinstance(value, (int, float))
    }
    for tracker in _trackers(loggers):
        tracker.log_metrics(metrics, step)


def _trackers(loggers: Sequence[Any]) -> list[Any]:
    return [logger for logger in loggers if not isinstance(logger, (CSVLogger, TensorBoardLogger))]


@contextmanager
def _needs(package: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError:
        raise InputError(f"logger={package}: it is not installed; pip install 'videogn[{package}]'") from None


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


def _read(path: Path) -> str | None:
    return path.read_text().strip() if path.is_file() else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
