"""Schedules that torch counts in steps, by shares of the training, so that they hold at every batch size."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR


def multi_step(optimizer: Optimizer, milestones: Sequence[int | float], total_steps: int, gamma: float) -> MultiStepLR:
    """The lr times gamma from each milestone on.

    Args:
        milestones: shares of `total_steps`, above 0 and below 1.
        total_steps: of the optimiser.

    Raises:
        ValueError: a milestone outside of the training.
    """
    if outside := [share for share in milestones if not 0 < share < 1]:
        raise ValueError(f"milestones={outside[0]}; give shares of the steps, above 0 and below 1")
    return MultiStepLR(optimizer, [round(share * total_steps) for share in milestones], gamma)
