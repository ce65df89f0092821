"""Stop a training that has diverged, with what it saved before still good."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from videogn.training.interrupt import on_any_rank
from videogn.types import Batch, Findings, Stopped

_SHOWN = 8  # names of videos in a line
REMEDY = "lower the lr, warm up longer, clip the gradients (trainer.gradient_clip_val=1), or look at the videos"


class StopDivergence(pl.Callback):
    """Ends the run with Findings where a loss is not finite, before the optimiser's step; and where a checkpoint would be written
    of weights that are not, before it is.

    The loss is what training_step computes. A step that the gradient scaler of fp16 leaves out, its scaled gradients being too
    large, has a finite loss and is no divergence. All ranks stop together. The loggers get the loss of that step, so that
    metrics.csv tells a run that has diverged.

    Args:
        kept: last.ckpt, which the message names if it is there.
    """

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        self._batch: Batch | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int) -> None:
        self._batch = batch

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # Here, and not before the backward pass: on a GPU that is queued by now, and does not wait for the answer.
        is_finite = pl_module.loss is None or bool(pl_module.loss.isfinite())
        if not on_any_rank(trainer, not is_finite):
            return
        said = "" if is_finite else self._said(trainer, pl_module)
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        place = f"step {trainer.global_step + 1:,}, epoch {trainer.current_epoch + 1}, lr {lr:g}"
        self._stop(trainer, f"diverged at {place}: {'; '.join(line for line in _of_all_ranks(trainer, said) if line)}")

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        network = pl_module.network
        names = not_finite(chain(network.named_parameters(), network.named_buffers()))
        # A rank may have statistics of its own, or a part of the weights alone; all stop together.
        if on_any_rank(trainer, bool(names)):
            place = f"step {trainer.global_step:,}, epoch {trainer.current_epoch + 1}"
            self._stop(trainer, f"diverged at {place}: {_weights(names)}")

    def _said(self, trainer: pl.Trainer, classifier: Any) -> str:
        """Of this rank's batch: the loss, what may be the reason, the videos."""
        assert self._batch is not None
        train = trainer.datamodule.manifest.split("train")  # pyright: ignore[reportAttributeAccessIssue]
        videos = [str(train.path(row)) for row in self._batch.videos.tolist()]
        # Without the statistics of batch norms, which this batch has spoilt.
        if names := not_finite(classifier.network.named_parameters()):
            reason = f"; {_weights(names)}"
        elif classifier.waits_for_ranks:
            reason = ""  # a forward pass of one rank would wait for the others
        else:
            with trainer.precision_plugin.forward_context():
                guilty = [videos[row] for row in alone(classifier, self._batch)]
            few = f"already alone: {_named(guilty)}" if guilty else "no clip of it does so alone"
            reason = "; every clip of it does so alone" if guilty == videos else f"; {few}"
        return f"the loss is {float(classifier.loss)} of {_named(videos)}{reason}"

    def _stop(self, trainer: pl.Trainer, line: str) -> NoReturn:
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, "train/loss_step": math.nan}, trainer.global_step)
            logger.save()
        kept = f"{self._kept} is of before" if self._kept.is_file() else "no checkpoint had been written"
        if trainer.local_rank == 0:
            raise Findings(f"{line}; {kept}; {REMEDY}")
        raise Stopped(signal.SIGTERM, "another device's process says why")


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """The names of those with a value that is no finite number; of divided ones, in this process's part."""
    parts = [(name, tensor.to_local() if isinstance(tensor, DTensor) else tensor) for name, tensor in tensors]
    named = [(name, part.isfinite().all()) for name, part in parts]
    # One answer from the device for all of them.
    are_finite = torch.stack([answer for _, answer in named]).tolist() if named else []
    return [name for (name, _), is_finite in zip(named, are_finite, strict=True) if not is_finite]


@torch.no_grad()
def alone(classifier: Any, batch: Batch) -> list[int]:
    """The clips of a batch, by their rows in it, whose loss is not finite with no other clip beside them, and unmixed."""
    inputs, rows = classifier.inputs(batch), []
    for row in range(len(batch.labels)):
        try:
            loss = classifier.optimization.loss(classifier.network(inputs[row : row + 1]), batch.labels[row : row + 1])
        except ValueError:  # a batch norm that is given one value a channel
            continue
        if not bool(loss.isfinite()):
            rows.append(row)
    return rows


def _of_all_ranks(trainer: pl.Trainer, line: str) -> list[str]:
    if trainer.world_size == 1:
        return [line]
    lines: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(lines, line)
    return lines


def _weights(names: Sequence[str]) -> str:
    where = f"{len(names)} of the network's tensors, such as {names[0]}" if names else "of another device"
    return f"the weights are no finite numbers any more ({where})"


def _named(videos: Sequence[str]) -> str:
    more = f" and {len(videos) - _SHOWN} more" if len(videos) > _SHOWN else ""
    return ", ".join(videos[:_SHOWN]) + more
