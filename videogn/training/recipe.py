"""A recipe that is stated for so many clips a step, at any other number of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train, as stated for `base_batch_size` clips a step.

    Linear scaling at equal epochs (Goyal et al., arXiv:1706.02677): with n clips a step,

        lr = base_lr * n / base_batch_size      steps = base_steps * base_batch_size / n

    Attributes:
        base_batch_size: clips a step, of all devices and accumulated batches.
        base_lr: None leaves the lr to the optimiser's configuration.
        base_steps: None leaves the length to a number of epochs.
    """

    base_batch_size: int
    base_lr: float | None
    base_steps: int | None

    def lr(self, clips_a_step: int) -> float | None:
        return None if self.base_lr is None else self.base_lr * clips_a_step / self.base_batch_size

    def steps(self, clips_a_step: int) -> int | None:
        """At least one, rounded to the nearest."""
        return None if self.base_steps is None else max(1, round(self.base_steps * self.base_batch_size / clips_a_step))

    def describe(self, clips_a_step: int, steps_per_epoch: int) -> str:
        """What becomes of it, in a line; `steps_per_epoch` at `clips_a_step`."""
        parts = [f"{clips_a_step} clips a step"]
        if (lr := self.lr(clips_a_step)) is not None:
            parts.append(f"lr {lr:g} = {self.base_lr:g} x {clips_a_step} / {self.base_batch_size}")
        if (steps := self.steps(clips_a_step)) is not None:
            parts.append(
                f"{steps:,} steps = {self.base_steps:,} x {self.base_batch_size} / {clips_a_step}, "
                f"{steps / steps_per_epoch:.1f} epochs"
            )
        return "; ".join(parts)
