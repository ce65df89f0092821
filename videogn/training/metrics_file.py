"""metrics.csv of a run, kept when the run is resumed."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter


class MetricsFile(CSVLogger):
    """Lightning's CSV logger, writing `save_dir`/metrics.csv and appending to one that is there.

    Lightning's own deletes the file of the run that it resumes.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=10)

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if not isinstance(self._experiment, ExperimentWriter):
            path = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
            kept = path.read_text() if path.is_file() else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it would delete the file
                self._experiment = ExperimentWriter(log_dir=self.log_dir)
            if kept is not None:
                path.write_text(kept)
                self._experiment.metrics_keys = list(next(csv.reader(kept.splitlines()), []))
        return self._experiment
