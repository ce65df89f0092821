"""Train a network whose weights came from elsewhere: leave stages as they are, and move early ones slowly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from videogn.types import InputError


@dataclass(frozen=True)
class FineTuning:
    """What is trained, and how fast.

    Attributes:
        freeze: how many of the network's stages from the input on stay as they are, or which: names of stages, or of blocks and
            layers ("res4.0", "trunk.res4.0.conv1"), in a list or divided by commas. Their norms' statistics stay too.
        layer_decay: the learning rate of a stage is this times that of the next one.
        head_lr_factor: learning rate of the head, times that of the schedule.

    Raises:
        InputError: a factor that is not positive, or a `freeze` that is neither.
    """

    freeze: int | str | Sequence[str] | None = None
    layer_decay: int | float = 1.0
    head_lr_factor: int | float = 1.0

    def __post_init__(self) -> None:
        for name in ("layer_decay", "head_lr_factor"):
            value: Any = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
                raise InputError(f"weight.{name}={value}; give a positive number, 1 to leave the learning rate as it is")
        if isinstance(self.freeze, (list, tuple)):
            is_known = all(isinstance(name, str) for name in self.freeze)
        else:
            is_known = self.freeze is None or (isinstance(self.freeze, (int, str)) and not isinstance(self.freeze, bool))
        if not is_known:
            raise InputError(f"weight.freeze={self.freeze}; give a number of stages, or names as stem,res2")

    def frozen(self, network: Any) -> list[nn.Module]:
        """The modules that `freeze` means, whose parameters no longer ask for a gradient.

        Raises:
            InputError: no such stage or parameter, or nothing is left to train.
        """
        if self.freeze is None:
            return []
        stages = _stages(network)
        if isinstance(self.freeze, int):
            if not 0 <= self.freeze < len(stages):
                raise InputError(f"weight.freeze={self.freeze}; the network has {len(stages)} stages: {', '.join(stages)}")
            wanted = list(stages)[: self.freeze]
        else:
            names = self.freeze.split(",") if isinstance(self.freeze, str) else self.freeze
            wanted = [name.strip() for name in names if name.strip()]
        found: list[nn.Module] = []
        modules = dict(network.named_modules())
        for name in wanted:
            layers = stages.get(name) or [modules[key] for key in (name, f"trunk.{name}") if key in modules]
            if not layers or not name:
                raise InputError(f"weight.freeze: no stage or layer {name!r}; the stages are {', '.join(stages)}")
            found += layers
        for module in found:
            module.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise InputError(f"weight.freeze={self.freeze}: nothing is left to train; leave a stage out")
        return found

    def lr_factors(self, network: Any) -> dict[int, float]:
        """id of a parameter -> its learning rate over that of the schedule; none where all move alike.

        Raises:
            InputError: over so many stages one comes to 0, or to more than a learning rate can be.
        """
        if self.layer_decay == self.head_lr_factor == 1:
            return {}
        stages = _stages(network)
        factors = {}
        for distance, layers in enumerate(reversed(stages.values())):
            try:
                factor = float(self.layer_decay**distance if distance else self.head_lr_factor)
            except OverflowError:
                factor = math.inf
            if not 0 < factor < torch.finfo(torch.float32).max:
                key = "layer_decay" if distance else "head_lr_factor"
                raise InputError(f"weight.{key}={getattr(self, key)} makes a factor of {factor}; give a number nearer to 1")
            factors.update({id(p): factor for layer in layers for p in layer.parameters()})
        return factors


def _stages(network: Any) -> dict[str, list[nn.Module]]:
    if not hasattr(network, "stages"):
        raise InputError(
            f"weight: {type(network).__name__} has no stages(): name -> layers, which freeze, layer_decay and head_lr_factor need"
        )
    return network.stages()


class Freeze(pl.Callback):
    """Keeps frozen modules in evaluation mode while training, so that no statistics move and no dropout acts there."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        # Not at the start of an epoch: a run that is resumed within one has none.
        for module in self._modules:
            module.eval()


def scale_learning_rates(optimizer: torch.optim.Optimizer) -> None:
    """From now on a step uses `lr` times `lr_factor` of every group that has one.

    Schedules, some of which overwrite `lr` as a whole, see and set the unscaled one.
    """
    if not any("lr_factor" in group for group in optimizer.param_groups):
        return

    def scale(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            group["_lr"] = group["lr"]
            group["lr"] = group["lr"] * group.get("lr_factor", 1.0)

    def restore(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            group["lr"] = group.pop("_lr")

    optimizer.register_step_pre_hook(scale)
    optimizer.register_step_post_hook(restore)
