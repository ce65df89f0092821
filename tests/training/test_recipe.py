"""A recipe at another number of clips a step: the same epochs, and the lr in proportion."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videogn.training.recipe import Recipe
from videogn.training.schedule import multi_step


def test_the_papers_recipe_at_half_its_batch() -> None:
    """The Non-local paper's 400k steps of 64 clips at lr 0.01; with 32, 800k at 0.005."""
    recipe = Recipe(64, 0.01, 400_000)
    assert (recipe.lr(64), recipe.steps(64)) == (0.01, 400_000)
    assert (recipe.lr(32), recipe.steps(32)) == (0.005, 800_000)
    line = "32 clips a step; lr 0.005 = 0.01 x 32 / 64; 800,000 steps = 400,000 x 64 / 32, 109.1 epochs"
    assert recipe.describe(32, 234_643 // 32) == line


@given(st.integers(1, 512), st.integers(1, 512), st.floats(1e-6, 10), st.integers(1, 10**6))
def test_clips_and_lr_over_clips_stay(base: int, clips: int, lr: float, steps: int) -> None:
    recipe = Recipe(base, lr, steps)
    scaled_lr, scaled_steps = recipe.lr(clips), recipe.steps(clips)
    assert scaled_lr is not None
    assert scaled_steps is not None
    assert scaled_lr / clips == pytest.approx(lr / base)
    # Rounding moves the number of clips by half a step, and there is always one.
    assert abs(scaled_steps * clips - steps * base) <= clips / 2 or scaled_steps == 1


def test_what_is_not_said_is_left_alone() -> None:
    recipe = Recipe(8, None, None)
    assert (recipe.lr(4), recipe.steps(4)) == (None, None)
    assert recipe.describe(4, 10) == "4 clips a step"


def test_multi_step_counts_shares_of_the_training() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = multi_step(optimizer, [0.375, 0.75], 800, 0.1)
    rates = []
    for _ in range(800):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:300] == [1.0] * 300
    assert rates[300:600] == pytest.approx([0.1] * 300)
    assert rates[600:] == pytest.approx([0.01] * 200)


@pytest.mark.parametrize("milestone", [0, 1.0, 1.5, 150_000])
def test_a_milestone_outside_of_the_training_is_refused(milestone: int | float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match=f"milestones={milestone}; give shares of the steps, above 0 and below 1"):
        multi_step(optimizer, [0.5, milestone], 800, 0.1)
