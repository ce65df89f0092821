"""The LightningModule: one step of training, the scores of a split, the optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int64
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from videogn.evaluation.metrics import classification_metrics
from videogn.evaluation.multi_view import Scores, ViewCollector
from videogn.evaluation.protocol import Protocol
from videogn.training.datamodule import ClipData
from videogn.training.execution import Execution
from videogn.training.fine_tuning import FineTuning, scale_learning_rates
from videogn.training.parameter_groups import parameter_groups
from videogn.training.quarantine import Quarantine
from videogn.transform.functional import to_input
from videogn.transform.mixing import Mixing
from videogn.types import Batch, InputError

# What a callback can watch.
METRICS = ("val/top1", "val/loss", *(f"train/{name}{when}" for name in ("loss", "top1") for when in ("", "_step", "_epoch")))


@dataclass(frozen=True)
class Optimization:
    """How the weights move.

    Attributes:
        loss: (scores, labels) -> scalar; with mixing, labels are each class's share, (N, K).
        optimizer: parameter groups -> torch optimiser.
        schedule: optimiser -> torch scheduler, advanced once a step.
        norm_weight_decay: whether gamma and beta of the norms decay too.
        seed: with the step and the rank, the source of dropout and of mixing.
        quarantine: takes the training videos that cannot be read.
        fine_tuning: how fast the stages move.
        mixing: of the clips and labels of a batch.
        lr_factor: optimiser step -> what the schedule's lr is multiplied with in it, as for steps of more clips.
    """

    loss: nn.Module
    optimizer: Callable[[list[dict[str, Any]]], Optimizer]
    schedule: Callable[[Optimizer], Any]
    norm_weight_decay: bool
    seed: int
    quarantine: Quarantine
    fine_tuning: FineTuning = field(default_factory=FineTuning)
    mixing: Mixing = field(default_factory=Mixing)
    lr_factor: Callable[[int], float] | None = None


class VideoClassifier(pl.LightningModule):
    """A network with what it needs to be trained and tested.

    Args:
        network: (N, 3, T, H, W) -> (N, K).
        classes: the K class names.
        mean, std: RGB, on the 0..255 scale.
        protocols: for testing, by name.
        validation: the protocol after each epoch.
        batch_size: views in one forward when testing.
        optimization: needed for training only.
        execution: how `network` is called in a training step; None: as it is.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        protocols: Mapping[str, Protocol],
        validation: Protocol,
        batch_size: int,
        optimization: Optimization | None = None,
        execution: Execution | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self._execution = execution or Execution(network)
        self.classes = tuple(classes)
        self.protocols = dict(protocols)
        self.test_scores: dict[str, Scores] = {}
        self._mean = tuple(mean)
        self._std = tuple(std)
        self._validation = validation
        self._batch_size = batch_size
        self._optimization = optimization
        self.loss: Tensor | None = None  # of the latest batch, before any scaling; None where it had no clips
        # Not to leave out the losses that are no numbers; and looking for them would wait for the device at every step.
        self._train_loss = MeanMetric(nan_strategy="disable")
        self._train_top1 = MeanMetric(nan_strategy="disable")
        self._collectors: list[ViewCollector] = []

    def forward(self, inputs: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N K"]:
        return self._execution(inputs)

    def inputs(self, batch: Batch) -> Float[Tensor, "N 3 T H W"]:
        return to_input(batch.clips, batch.flips, self._mean, self._std, batch.appearance)

    @property
    def dead(self) -> Sequence[str]:
        """Paths of the training videos that could not be read."""
        return self._optimization.quarantine.paths if self._optimization is not None else ()

    @property
    def optimization(self) -> Optimization:
        assert self._optimization is not None, "this classifier was made for testing"
        return self._optimization

    def on_train_start(self) -> None:
        self.optimization.loss.to(self.device)  # class weights; it is no part of the network, nor of its state

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch.

        train/top1 is the share of the answered class in the clip's label: 1 or 0 without mixing, so its mean is the top-1
        accuracy. Of a clip mixed 0.7 to 0.3 each of the two classes counts as much as there is of it, so train/top1 stays
        below 1 however good the network is.
        """
        self.loss = None
        for dead in batch.dead:
            self.optimization.quarantine.add(dead, self.print)
        # Dropout and mixing are keyed by (seed, batch, rank), as clips are by their keys: a resumed run draws what the first
        # would have.
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        torch.manual_seed(hash((self.optimization.seed, step, self.global_rank)))
        others_wait = self.waits_for_ranks and self.trainer.strategy.reduce_boolean_decision(len(batch.clips) > 0, all=False)
        if not len(batch.clips):
            # All videos of the batch are dead. Where other ranks wait, as norms that meet do, forward and backward in the order
            # of the layers, a batch of no clips runs through; else it is a zero with a gradient for every parameter.
            if others_wait:
                return self.network(torch.empty(0, 3, self._validation.sampler.clip_length, 224, 224, device=self.device)).sum()
            return torch.stack([parameter.sum() for parameter in self.network.parameters()]).sum() * 0.0
        inputs, labels = self.inputs(batch), batch.labels
        mixing = self.optimization.mixing
        if mixing.is_on:
            inputs, labels = mixing(inputs, labels, len(self.classes), self.optimization.seed, step, self.global_rank)
        logits = self(inputs)
        loss = self.optimization.loss(logits, labels)
        self.loss = loss.detach()
        self._train_top1(answered_share(logits.detach(), labels))
        count = len(batch.labels)
        # Metric objects meet the other ranks once an epoch; a rank whose batch is dead need not answer at every step.
        self._train_loss(loss.detach(), weight=count)
        self.log("train/loss", self._train_loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=count)
        self.log("train/top1", self._train_top1, on_step=True, on_epoch=True, prog_bar=True, batch_size=count)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._collectors = [ViewCollector(self._validation, len(self.classes))]

    def validation_step(self, batch: Sequence[Batch], batch_idx: int) -> None:
        self._score(batch)

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        split = self._data.manifest.split("val")
        metrics = classification_metrics(self._collectors[0].gather(len(split)), split.targets(), self.classes)
        self.log("val/top1", metrics["top1"], prog_bar=True, sync_dist=True)
        # Without a finite score it is said too: who watches it, or reads it later, must not take an epoch before for this one.
        loss = math.nan if metrics["loss"] is None else metrics["loss"]
        self.log("val/loss", loss, prog_bar=True, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self._collectors = [ViewCollector(protocol, len(self.classes)) for protocol in self.protocols.values()]

    def test_step(self, batch: Sequence[Batch], batch_idx: int) -> None:
        self._score(batch)

    def on_test_epoch_end(self) -> None:
        num_videos = len(self._data.test_split)
        for name, collector in zip(self.protocols, self._collectors, strict=True):
            self.test_scores[name] = collector.gather(num_videos)

    def configure_optimizers(self) -> Any:
        """Raises InputError where the loss, the optimiser or the schedule refuses its values."""
        labels = torch.zeros(1, dtype=torch.long)
        if self.optimization.mixing.is_on:
            labels = one_hot(labels, len(self.classes)).float()
        try:
            self.optimization.loss(torch.zeros(1, len(self.classes)), labels)
        except (RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"loss: {error}; correct its values") from error
        factors = self.optimization.fine_tuning.lr_factors(self.network)
        groups = parameter_groups(self.network, self.optimization.norm_weight_decay, factors)
        try:
            optimizer = self.optimization.optimizer(groups)
        except (TypeError, ValueError) as error:
            raise InputError(f"optimizer: {error}; correct its values") from error
        scale_learning_rates(optimizer)
        try:
            schedule = self.optimization.schedule(optimizer)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise InputError(f"schedule: {error}; correct its values") from error
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """With the schedule's lr, times `lr_factor` of the step; schedules go on from the lr that they have set themselves."""
        if self.optimization.lr_factor is None:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            return
        factor = self.optimization.lr_factor(self.global_step)
        before = [group["lr"] for group in optimizer.param_groups]
        for group, lr in zip(optimizer.param_groups, before, strict=True):
            group["lr"] = lr * factor
        try:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        finally:
            for group, lr in zip(optimizer.param_groups, before, strict=True):
                group["lr"] = lr

    @property
    def waits_for_ranks(self) -> bool:
        """Whether a forward pass in training waits for the other ranks."""
        return self.trainer.world_size > 1 and any(getattr(m, "meets_other_ranks", False) for m in self.network.modules())

    def _score(self, batches: Sequence[Batch]) -> None:
        """Score the views of some videos, a batch for each protocol."""
        for collector, batch in zip(self._collectors, batches, strict=True):
            if len(batch.clips):
                # As many at a time as in training: one video may have hundreds.
                parts = zip(batch.clips.split(self._batch_size), batch.flips.split(self._batch_size), strict=True)
                logits = torch.cat([self.network(to_input(*part, self._mean, self._std)) for part in parts])
            else:
                logits = torch.empty(0, len(self.classes))
            collector.add(batch, logits)

    @property
    def _data(self) -> ClipData:
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(data, ClipData)
        return data


def answered_share(logits: Float[Tensor, "N K"], labels: Int64[Tensor, " N"] | Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
    """How much of each clip's label the class with the highest score has: 1 or 0 where labels are class indices."""
    answers = logits.argmax(1)
    if labels.ndim == 1:
        return (answers == labels).float()
    return labels.gather(1, answers[:, None])[:, 0]
