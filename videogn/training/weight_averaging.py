"""The moving average of the weights over the steps, which is validated, tested and kept in their place."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from videogn.number import is_number
from videogn.types import InputError


class ExponentialMovingAverage(WeightAveraging):
    """After every step of the optimiser, for every weight and every running statistic of a norm,

        average = decay * average + (1 - decay) * weight          the first time: average = weight

    so that the average is over about 1 / (1 - decay) steps. Validation and test are of the average, and it is `state_dict` of a
    checkpoint, what `evaluate`, `predict` and `export` read; the weights that training goes on with are `current_model_state`.
    Counters of a norm's batches are no averages, they are those of the weights.

    Lightning's callback with three differences: the average lies on the device of the weights (Lightning's is made before they
    are moved there, and each step would carry all of them to the CPU); counters stay whole; and a run that is resumed with
    nothing left but its test is tested by the average too.

    Args:
        decay: 0 to 1, without 1.

    Raises:
        InputError: decay is no such number.

    Source: Polyak & Juditsky 1992; as here, with its decay, Szegedy et al. 2016, arXiv:1512.00567.
    """

    def __init__(self, decay: float | int = 0.999) -> None:
        if not is_number(decay, high=1) or decay == 1:
            raise InputError(f"ema: decay={decay}; give a number from 0 up and below 1, such as 0.999 for about 1,000 steps")

        move = get_ema_multi_avg_fn(decay)

        def average(averages: Any, values: Any, num_averaged: Tensor | int) -> None:
            if averages[0].is_floating_point():  # all of them: they come by dtype
                move(averages, values, num_averaged)
                return
            for kept, value in zip(averages, values, strict=True):
                kept.copy_(value)

        super().__init__(use_buffers=True, multi_avg_fn=average)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # on_train_end has done so already, but is not called where all steps had been done before.
        self._copy_average_to_current(pl_module)


def check_statistics(network: nn.Module, callbacks: list[Any]) -> None:
    """Raises InputError where precise statistics, which are of the weights, would be averaged as if they ran."""
    precise = any(getattr(module, "precise_batches", 0) for module in network.modules())
    if precise and any(isinstance(callback, WeightAveraging) for callback in callbacks):
        raise InputError(
            "callback=ema with norm.precise_batches: precise statistics are of the weights, and not of their average; leave one "
            "out: the average has running statistics of its own"
        )
