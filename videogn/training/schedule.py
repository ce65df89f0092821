"""Schedules that torch counts in steps, by shares of the training, so that they hold at every batch size; each may warm up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, PolynomialLR, SequentialLR

from videogn.number import is_number, is_positive
from videogn.types import InputError


@dataclass(frozen=True)
class WarmUp:
    """From `factor` times the lr to the lr in a straight line, before what the schedule has to say. Goyal et al. 2017,
    arXiv:1706.02677.

    Attributes:
        share: of the training's steps that it takes.
        epochs: or how many epochs, a fraction if wanted; None where `share` says it.
        factor: above 0, to 1.
        steps_per_epoch: the optimiser's, for `epochs`.

    Raises:
        InputError: a value that is none of these, or both lengths.
    """

    share: float | int = 0.0
    epochs: float | int | None = None
    factor: float | int = 0.01
    steps_per_epoch: int | None = None

    def __post_init__(self) -> None:
        if not is_number(self.share, high=1) or self.share == 1:
            raise InputError(f"warmup.share={self.share}; give a share of the steps, from 0 up and below 1")
        if not (self.epochs is None or is_number(self.epochs)):
            raise InputError(f"warmup.epochs={self.epochs}; give a number of epochs, or null")
        if self.share and self.epochs is not None:
            raise InputError(f"warmup.share={self.share} and warmup.epochs={self.epochs} both say how long; leave one out")
        if not is_number(self.factor, high=1) or self.factor == 0:
            raise InputError(f"warmup.factor={self.factor}; give a part of the lr, above 0 and to 1")

    def steps(self, total_steps: int) -> int:
        """Rounded to the nearest; raises InputError where nothing is left behind it."""
        steps = round(self.share * total_steps if self.epochs is None else self.epochs * (self.steps_per_epoch or 1))
        if steps >= total_steps:
            raise InputError(f"a warm-up of {steps} steps leaves none of {total_steps}; shorten warmup.epochs or warmup.share")
        return steps


def constant(optimizer: Optimizer, total_steps: int, warmup: WarmUp | None = None) -> LRScheduler:
    """The lr as it is."""
    return _warmed(ConstantLR(optimizer, 1.0), total_steps, warmup)


def multi_step(
    optimizer: Optimizer, milestones: Sequence[int | float], total_steps: int, gamma: float | int, warmup: WarmUp | None = None
) -> LRScheduler:
    """The lr times gamma from each milestone on.

    Args:
        milestones: shares of `total_steps`, above 0 and below 1, behind the warm-up.
        total_steps: of the optimiser.

    Raises:
        ValueError: a milestone outside of the training, or within the warm-up; a gamma that is no number above 0.
    """
    if not is_positive(gamma):
        raise ValueError(f"gamma={gamma}; give what a milestone multiplies the lr with, above 0")
    if outside := [share for share in milestones if not 0 < share < 1]:
        raise ValueError(f"milestones={outside[0]}; give shares of the steps, above 0 and below 1")
    before = warmup.steps(total_steps) if warmup is not None else 0
    steps = [round(share * total_steps) - before for share in milestones]
    if before and min(steps, default=1) <= 0:
        raise ValueError(f"milestones={min(milestones)} lies within the warm-up of {before} steps; give a later one")
    return _warmed(MultiStepLR(optimizer, steps, gamma), total_steps, warmup)


def cosine(optimizer: Optimizer, total_steps: int, final_factor: float | int, warmup: WarmUp | None = None) -> LRScheduler:
    """After a warm-up of w steps, at step s of n, with the optimiser's lr and f = final_factor:

        lr_s = lr * (f + (1 - f) * (1 + cos(pi * (s - w) / (n - w))) / 2)

    Loshchilov & Hutter 2017, arXiv:1608.03983, without its restarts.

    Raises:
        ValueError: final_factor is no share.
    """
    if not is_number(final_factor, high=1):
        raise ValueError(f"final_factor={final_factor}; give what is left of the lr at the end, 0 to 1")
    left = total_steps - (warmup.steps(total_steps) if warmup is not None else 0)
    lr = optimizer.param_groups[0]["lr"]  # of all groups; `lr_factor` says what is another
    return _warmed(CosineAnnealingLR(optimizer, left, final_factor * lr), total_steps, warmup)


def polynomial(optimizer: Optimizer, total_steps: int, power: float | int, warmup: WarmUp | None = None) -> LRScheduler:
    """After a warm-up of w steps, at step s of n: lr_s = lr * (1 - (s - w) / (n - w)) ** power.

    Raises:
        ValueError: power is no number above 0.
    """
    if not is_number(power) or power == 0:
        raise ValueError(f"power={power}; give a number above 0, 1 for a straight line")
    left = total_steps - (warmup.steps(total_steps) if warmup is not None else 0)
    return _warmed(PolynomialLR(optimizer, left, power), total_steps, warmup)


def _warmed(schedule: LRScheduler, total_steps: int, warmup: WarmUp | None) -> LRScheduler:
    """`schedule`, begun after the warm-up."""
    steps = warmup.steps(total_steps) if warmup is not None else 0
    if warmup is None or not steps:
        return schedule
    optimizer = schedule.optimizer
    return SequentialLR(optimizer, [LinearLR(optimizer, warmup.factor, total_iters=steps), schedule], [steps])


def describe_warmup(warmup: WarmUp | None, schedule: LRScheduler, total_steps: int) -> str:
    """In a line, or "" where there is none.

    Raises:
        InputError: the schedule is one that does not warm up.
    """
    if warmup is None or not (warmup.share or warmup.epochs):
        return ""
    if isinstance(schedule, (ConstantLR, CosineAnnealingLR, MultiStepLR, PolynomialLR)):
        return ""  # it takes one, which came to less than half a step
    if not isinstance(schedule, SequentialLR):
        raise InputError(
            f"warmup: {type(schedule).__name__} does not take one; use schedule=cosine, polynomial, multi_step or constant, or, "
            "with one_cycle, schedule.pct_start"
        )
    lr = schedule.optimizer.param_groups[0]["initial_lr"]
    return f"warm-up: {warmup.steps(total_steps):,} of {total_steps:,} steps, lr {lr * warmup.factor:g} to {lr:g}"
