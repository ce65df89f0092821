"""Stop between two steps, with everything saved."""

from __future__ import annotations

import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from videogn.training.datamodule import ClipData
from videogn.types import Stopped

# Ctrl-C; the end that a machine announces; and what SLURM is asked to send before the end of a job's time (Windows has none).
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))
_ECHO_SECONDS = 1.0
# An epoch of Kinetics may be 29,000 steps, and SIGKILL (a node that falls, no memory) leaves what the last checkpoint has.
_SAVE_SECONDS = 600.0


class LastCheckpoint(Checkpoint):
    """Writes `path` when training is told to stop (Ctrl-C, SIGTERM, SIGUSR1), after every epoch's last step, after its
    validation, and every ten minutes at the end of a step.

    A first signal waits for the step to end, so that no half-made update is saved; a second one ends the process at once. SIGTERM
    or SIGUSR1 again within a second is none: the kernel tells of the end of a parent once for each of its threads, and torchrun
    passes on what SLURM has sent to each process anyway.
    To Lightning it is a Checkpoint, and so comes behind the callbacks that watch a metric: else what it writes at the end of an
    epoch would not have what early stopping made of that epoch, and a resumed run would wait for one more.

    With gradient accumulation it waits for the optimiser's step. All ranks save and stop after the same step.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signum = 0
        self._heard = 0.0  # when
        self._saved = 0.0  # when
        self._stopping = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Around trainer.fit: Ctrl-C while the first clips are read, or other devices start, waits for the first step."""
        before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
        self._listen(signal.SIGINT)
        try:
            yield
        finally:
            if _in_main_thread():
                for signum, handler in before.items():
                    signal.signal(signum, handler)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Whether training is over, as early stopping says, is no state of Lightning's."""
        checkpoint["should_stop"] = trainer.should_stop

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Give the loader its place also where an epoch had ended: there Lightning 2.6 does not, and its clips begin anew.

        And have an epoch validated whose last step was saved: to Lightning 2.6 it is over, and no callback would see its val.
        """
        trainer.should_stop = checkpoint.get("should_stop", False)
        self._follow_moved(trainer, checkpoint)
        loop = checkpoint["loops"]["fit_loop"]
        places = loop["state_dict"].get("combined_loader")
        data = getattr(trainer, "datamodule", None)
        if places and isinstance(data, ClipData):
            data.training_place = places[0]
        steps, epochs, every = (
            loop["epoch_loop.batch_progress"],
            loop["epoch_progress"]["current"],
            trainer.check_val_every_n_epoch,
        )
        is_unvalidated = steps["is_last_batch"] and steps["current"]["completed"] < steps["current"]["processed"]
        if is_unvalidated and (every is None or (epochs["processed"] + 1) % every == 0):
            # As a checkpoint stands that was saved in the first step of the validation: it is begun again.
            for counts in (steps["total"], steps["current"]):
                counts["completed"] = counts["processed"]
            for counts in (loop["epoch_loop.val_loop.batch_progress"][name] for name in ("total", "current")):
                counts.update(ready=1, started=1, processed=0, completed=0)

    def _follow_moved(self, trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
        """In a run folder that was moved Lightning forgets how good the best checkpoint was, and writes a worse one over it."""
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint["callbacks"].get(callback.state_key)
            if state and isinstance(callback, ModelCheckpoint) and state["dirpath"] != callback.dirpath:
                before, now = state["dirpath"], str(callback.dirpath)
                for key in ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path"):
                    state[key] = state[key].replace(before, now, 1)
                state["best_k_models"] = {path.replace(before, now, 1): score for path, score in state["best_k_models"].items()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = time.monotonic()
        # The others from here on: Lightning has put its own handlers there, on SLURM one that would write another checkpoint.
        self._listen(*_SIGNALS)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_last_batch and (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        # One question to the other ranks a step: what it is about, they say only where there is something.
        is_due = self._signum != 0 or time.monotonic() - self._saved >= _SAVE_SECONDS
        if on_any_rank(trainer, is_due) or trainer.is_last_batch:
            self._stopping = self._told(trainer)
            self._save(trainer)

    # The step is logged after on_train_batch_end, so training ends where the next thing would begin.
    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self._stop()

    def on_validation_start(self, *args: Any, **kwargs: Any) -> None:
        self._stop()

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        # The step before has been saved. Ranks have different numbers of batches here, so they do not confer.
        self._stopping |= self._signum != 0 and trainer.world_size == 1
        self._stop()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)
        self._stopping |= self._told(trainer)
        self._stop()

    def _told(self, trainer: pl.Trainer) -> bool:
        return on_any_rank(trainer, self._signum != 0)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self._path)
        self._saved = time.monotonic()

    def _stop(self) -> None:
        if self._stopping:
            resume = shlex.quote(f"resume={self._path.parents[1]}")
            raise Stopped(self._signum or signal.SIGINT, f"{self._path} is written; go on with: videogn train {resume}")

    def _listen(self, *signums: int) -> None:
        if _in_main_thread():
            for signum in signums:
                signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self._signum == signum != signal.SIGINT and time.monotonic() - self._heard < _ECHO_SECONDS:
            return
        if self._signum:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        self._signum, self._heard = signum, time.monotonic()


class StopTest(pl.Callback):
    """Ends a test at once when it is told to stop (Ctrl-C, SIGTERM, SIGUSR1); Lightning alone would end with status 0 or 1.

    Args:
        message: what is left, and how to go on.
    """

    def __init__(self, message: str) -> None:
        self._message = message
        self._before: dict[int, Any] = {}

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if _in_main_thread():
            self._before = {signum: signal.signal(signum, self._stop) for signum in _SIGNALS}

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.on_test_end(trainer, pl_module)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        raise Stopped(signum, self._message)


def on_any_rank(trainer: pl.Trainer, here: bool) -> bool:
    """Whether it is so on one rank at least; every rank asks."""
    return here if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(here, all=False)


def _in_main_thread() -> bool:
    """Where alone Python takes handlers."""
    return threading.current_thread() is threading.main_thread()
