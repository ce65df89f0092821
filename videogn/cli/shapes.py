"""`multigrid`, and the shapes of clips that a training has with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, ListConfig

from videogn.configuration import instantiate
from videogn.sampler.multigrid import Multigrid, Plan, Shape
from videogn.types import InputError, Sampler, TrainingTransform


def plan_of(config: DictConfig, trainer: Any, network: Any, total_steps: int) -> Plan | None:
    """The shape of clips of every step; None where there is one shape.

    Raises:
        InputError: `multigrid` has wrong values, shapes that the network cannot take, or stands beside what it does not go with.
    """
    multigrid = instantiate(config.get("multigrid"))
    if multigrid is None:
        return None
    if not isinstance(multigrid, Multigrid):
        raise InputError(f"multigrid._target_={config.multigrid._target_}: is no videogn.sampler.multigrid.Multigrid")
    if not multigrid.is_on:
        return None
    if config.get("batch_composition", "mixed") != "mixed":
        raise InputError(f"batch_composition={config.batch_composition} with multigrid: its batches are mixed; leave one out")
    limit = config.trainer.get("limit_train_batches")
    whole = limit is None or (isinstance(limit, float) and limit == 1.0)  # the number 1 is one batch
    if (config.trainer.get("overfit_batches") or not whole) and not trainer.fast_dev_run:
        raise InputError("multigrid goes through whole epochs; leave trainer.overfit_batches and trainer.limit_train_batches out")
    sampler, transform = config.sampler, config.transform
    if "clip_length" not in sampler or "frame_stride" not in sampler or "crop_size" not in transform:
        raise InputError(
            "multigrid sets sampler.clip_length, sampler.frame_stride, transform.crop_size and, where it is there, "
            "transform.short_side, and this sampler or transform has no such value"
        )
    clips_of(config, None)  # what is wrong with its values they say themselves
    plan = multigrid.plan(sampler.clip_length, sampler.frame_stride, transform.crop_size, total_steps)
    smallest = getattr(network, "smallest_clip", (1, 1, 1))
    for shape in plan.shapes:
        if any(came < least for came, least in zip((shape.clip_length, *(shape.crop_size,) * 2), smallest, strict=True)):
            raise InputError(
                f"multigrid: a clip of {shape.clip_length} x {shape.crop_size} x {shape.crop_size} is smaller than "
                f"{' x '.join(map(str, smallest))}, which this network asks for; give larger shares, clip_length or crop_size"
            )
    return plan


def shapes_of(plan: Plan | None, steps_per_epoch: int, batches_per_step: int) -> Callable[[int, int], tuple[int, int]] | None:
    """(epoch, batch) -> the place of its shape, and how many times as many clips; None where there is one shape."""
    if plan is None:
        return None

    def shape(epoch: int, batch: int) -> tuple[int, int]:
        place = plan.place(epoch * steps_per_epoch + batch // batches_per_step)
        return place, plan.shapes[place].clips

    return shape


def clips_of(config: DictConfig, plan: Plan | None) -> list[tuple[Sampler, TrainingTransform]]:
    """What draws the clips of each shape."""
    if plan is None:
        return [(instantiate(config.sampler), instantiate(config.transform))]
    return [_drawn(config.sampler.copy(), config.transform.copy(), shape) for shape in plan.shapes]


def _drawn(sampler: DictConfig, transform: DictConfig, shape: Shape) -> tuple[Sampler, TrainingTransform]:
    """What draws clips of that shape, where the configuration has what draws full ones."""
    sampler.clip_length, sampler.frame_stride, transform.crop_size = shape.clip_length, shape.frame_stride, shape.crop_size
    sides = transform.get("short_side")
    if isinstance(sides, ListConfig) and len(sides) == 2:
        transform.short_side = [max(shape.crop_size, round(sides[0] * shape.short_side)), sides[1]]
    return instantiate(sampler), instantiate(transform)
