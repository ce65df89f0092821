"""The LightningModule: one step of training, the scores of a split, the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from videogn.evaluation.metrics import classification_metrics
from videogn.evaluation.multi_view import Scores, ViewCollector, score_views
from videogn.evaluation.protocol import Protocol
from videogn.training.datamodule import ClipData
from videogn.training.fine_tuning import FineTuning, scale_learning_rates
from videogn.training.parameter_groups import parameter_groups
from videogn.transform.functional import to_input
from videogn.types import Batch, InputError


@dataclass(frozen=True)
class Optimization:
    """How the weights move.

    Attributes:
        loss: (scores, labels) -> scalar.
        optimizer: parameter groups -> torch optimiser.
        schedule: optimiser -> torch scheduler, advanced once a step.
        norm_weight_decay: whether gamma and beta of the norms decay too.
        seed: with the step and the rank, the source of dropout.
        fine_tuning: how fast the stages move.
    """

    loss: nn.Module
    optimizer: Callable[[list[dict[str, Any]]], Optimizer]
    schedule: Callable[[Optimizer], Any]
    norm_weight_decay: bool
    seed: int
    fine_tuning: FineTuning = field(default_factory=FineTuning)


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
    ) -> None:
        super().__init__()
        self.network = network
        self.classes = tuple(classes)
        self.protocols = dict(protocols)
        self.test_scores: dict[str, Scores] = {}
        self.dead: dict[str, str] = {}  # path -> reason, of the training videos met so far
        self._mean = tuple(mean)
        self._std = tuple(std)
        self._validation = validation
        self._batch_size = batch_size
        self._optimization = optimization
        self._train_loss = MeanMetric()
        self._train_top1 = MulticlassAccuracy(len(self.classes), average="micro")
        self._collectors: list[ViewCollector] = []

    def forward(self, inputs: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N K"]:
        return self.network(inputs)

    def inputs(self, batch: Batch) -> Float[Tensor, "N 3 T H W"]:
        return to_input(batch.clips, batch.flips, self._mean, self._std)

    @property
    def optimization(self) -> Optimization:
        assert self._optimization is not None, "this classifier was made for testing"
        return self._optimization

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        for dead in batch.dead:
            if dead.path not in self.dead:
                self.dead[dead.path] = dead.reason
                self.print(f"skipped {dead.path}: {dead.reason}")
        # Dropout is keyed by (seed, batch, rank), as clips are by their keys: a resumed run draws what the first would have.
        torch.manual_seed(hash((self.optimization.seed, self.trainer.fit_loop.epoch_loop.total_batch_idx, self.global_rank)))
        others_wait = self._norms_meet() and self.trainer.strategy.reduce_boolean_decision(len(batch.clips) > 0, all=False)
        if not len(batch.clips):
            # All videos of the batch are dead. Where the norms of other ranks wait, forward and backward in the order of the
            # layers, a batch of no clips runs through; else it is a zero with a gradient for every parameter, as DDP wants.
            if others_wait:
                return self(torch.empty(0, 3, self._validation.sampler.clip_length, 224, 224, device=self.device)).sum()
            return torch.stack([parameter.sum() for parameter in self.network.parameters()]).sum() * 0.0
        logits = self(self.inputs(batch))
        loss = self.optimization.loss(logits, batch.labels)
        self._train_top1(logits.detach(), batch.labels)
        count = len(batch.labels)
        # Metric objects meet the other ranks once an epoch; a rank whose batch is dead need not answer at every step.
        self._train_loss(loss.detach(), weight=count)
        self.log("train/loss", self._train_loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=count)
        self.log("train/top1", self._train_top1, on_step=True, on_epoch=True, prog_bar=True, batch_size=count)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._collectors = [ViewCollector(self._validation.num_views, len(self.classes))]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._score(batch, 0)

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        split = self._data.manifest.split("val")
        metrics = classification_metrics(self._collectors[0].gather(len(split)), split.targets(), self.classes)
        self.log("val/top1", metrics["top1"], prog_bar=True, sync_dist=True)
        if metrics["loss"] is not None:
            self.log("val/loss", metrics["loss"], prog_bar=True, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self._collectors = [ViewCollector(p.num_views, len(self.classes)) for p in self.protocols.values()]

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._score(batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        num_videos = len(self._data.test_split)
        for name, collector in zip(self.protocols, self._collectors, strict=True):
            self.test_scores[name] = collector.gather(num_videos)

    def configure_optimizers(self) -> Any:
        """Raises InputError where the optimiser or the schedule refuses its values."""
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

    def _norms_meet(self) -> bool:
        return self.trainer.world_size > 1 and any(getattr(m, "meets_other_ranks", False) for m in self.network.modules())

    def _score(self, batch: Batch, index: int) -> None:
        if len(batch.clips):
            logits = score_views(self.network, self.inputs(batch), self._batch_size)
        else:
            logits = torch.empty(0, len(self.classes))
        self._collectors[index].add(batch, logits)

    @property
    def _data(self) -> ClipData:
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(data, ClipData)
        return data
