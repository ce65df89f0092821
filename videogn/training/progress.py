"""What a user watches: a bar for the epoch, a line for each epoch behind it."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from videogn.types import Batch


class TrainingProgress(ProgressBar):
    """Bars while a terminal watches, and one line an epoch anywhere: loss, top-1, clips a second, time left of the run.

    Attributes:
        rates: of each epoch, clips a second of training, all devices together, validation left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(stderr=True, highlight=False)
        self._bars: Progress | None = None
        self._bar = TaskID(0)
        self._enabled = True
        self._start = self._epoch_start = self._training_end = 0.0
        self._steps = self._clips = self._scored = 0
        self.rates: list[float] = []

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    @property
    def is_enabled(self) -> bool:
        """Asked by LightningModule.print."""
        return self._enabled

    def print(self, *args: Any, **kwargs: Any) -> None:
        self._console.print(*args, markup=False, soft_wrap=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start, self._steps = time.monotonic(), 0
        every = trainer.check_val_every_n_epoch
        steps_per_epoch = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
        epochs = trainer.estimated_stepping_batches / steps_per_epoch
        if self._enabled and trainer.limit_val_batches and every is not None and every > epochs:
            length = f"{epochs:g} epoch" + ("s" if epochs > 1 else "")
            self.print(f"no validation: trainer.check_val_every_n_epoch={every}, and the training has {length}")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_start, self._training_end, self._clips = time.monotonic(), 0.0, 0
        self._show(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", trainer.num_training_batches)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._steps += 1
        self._clips += len(batch.labels) * trainer.world_size
        if self._bars is None:
            # Resumed in the middle of an epoch: its start was in another process.
            self.on_train_epoch_start(trainer, pl_module)
            return
        metrics = trainer.progress_bar_metrics
        facts = [
            f"{name} {metrics[key]:.3f}"
            for name, key in (("loss", "train/loss_step"), ("top-1", "train/top1_step"))
            if key in metrics
        ]
        self._advance(batch_idx + 1, "  ".join([*facts, f"{self._rate():.1f} clips/s", self._left(trainer)]))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._hide()
        metrics = trainer.callback_metrics
        names = {
            "loss": "train/loss_epoch",
            "top-1": "train/top1_epoch",
            "val loss": "val/loss",
            "val top-1": "val/top1",
        }
        # The metrics of val stay those of the last validation, which need not be of this epoch.
        known = [
            (name, key) for name, key in names.items() if key in metrics and (self._training_end or not key.startswith("val/"))
        ]
        facts = [f"{name} {float(metrics[key]):.3f}" for name, key in known]
        self.rates.append(self._rate())
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        if self._enabled:
            self.print("  ".join([epoch, *facts, f"{self._rate():.1f} clips/s", self._left(trainer)]))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._training_end = time.monotonic()
        self._show("validation", trainer.num_val_batches[0] if trainer.num_val_batches else 0)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._scored += 1
        self._advance(self._scored, "")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show("test", sum(trainer.num_test_batches))

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._scored += 1
        self._advance(self._scored, "")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._hide()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._hide()

    def _show(self, name: str, total: int | float) -> None:
        self._hide()
        if self._enabled:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
            )
            self._bars = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
            self._bar = self._bars.add_task(name, total=total, facts="")
            self._bars.start()
            self._scored = 0

    def _advance(self, done: int, facts: str) -> None:
        if self._bars is not None:
            self._bars.update(self._bar, completed=done, facts=facts)

    def _hide(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _rate(self) -> float:
        seconds = (self._training_end or time.monotonic()) - self._epoch_start
        return self._clips / max(seconds, 1e-9)

    def _left(self, trainer: pl.Trainer) -> str:
        """Until the last step, from the pace so far, validation included."""
        remaining = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches - trainer.fit_loop.total_batch_idx - 1
        seconds = (time.monotonic() - self._start) / max(self._steps, 1) * max(remaining, 0)
        return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d} left"
