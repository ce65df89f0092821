"""Freezing, and learning rates by stage, in real optimiser steps."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from videogn.configuration import compose
from videogn.prediction.load import build_network
from videogn.training.fine_tuning import FineTuning, Freeze, scale_learning_rates
from videogn.training.parameter_groups import parameter_groups
from videogn.types import InputError


def network(norm: str = "group_norm") -> nn.Module:
    torch.manual_seed(0)
    return build_network(compose("train", [f"norm={norm}", "model.zero_init=false"]), 3)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer.zero_grad()
    functional.cross_entropy(model(torch.randn(2, 3, 4, 32, 32, generator=generator)), torch.tensor([0, 2])).backward()
    optimizer.step()


def moved(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """Stages of which some parameter or statistic is another now."""
    names = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    return {name.split(".")[1] if name.startswith("trunk.") else "head" for name in names}


@pytest.mark.parametrize(
    ("freeze", "left"),
    [
        ("conv1,norm1,res2", "res3 res4 head"),
        (["stem", "res2"], "res3 res4 head"),
        (2, "res3 res4 head"),
        (0, "conv1 norm1 res2 res3 res4 head"),
        ("res4", "conv1 norm1 res2 res3 head"),
        (None, "conv1 norm1 res2 res3 res4 head"),
    ],
    ids=str,
)
def test_what_is_frozen_does_not_move(freeze: Any, left: str) -> None:
    """With batch norm: its statistics are kept as well, once training has begun."""
    model = network("batch_norm").train()
    frozen = FineTuning(freeze).frozen(model)
    unwrap(Freeze.on_train_batch_start)(Freeze(frozen), None, None, None, 0)  # it asks none, and the hook would
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step(model, torch.optim.SGD(parameter_groups(model, False), lr=0.1, weight_decay=0.1, momentum=0.9))
    assert moved(model, before) == set(left.split())


def test_a_single_layer_can_be_frozen() -> None:
    model = network()
    FineTuning("res3.0.conv1").frozen(model)
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["trunk.res3.0.conv1.weight"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"freeze": "res9"}, "no stage or layer 'res9'; the stages are stem, res2, res3, res4, head"),
        ({"freeze": 6}, "weight.freeze=6; the network has 5 stages"),
        ({"freeze": -1}, "weight.freeze=-1"),
        ({"freeze": "stem,res2,res3,res4,head"}, "nothing is left to train"),
        ({"freeze": True}, "give a number of stages"),
        ({"freeze": ["stem", 1]}, r"weight.freeze=\['stem', 1\]; give a number of stages"),
        ({"freeze": [None]}, "give a number of stages"),
        ({"freeze": [["stem"]]}, "give a number of stages"),
        ({"freeze": {"stem": 1}}, "give a number of stages"),
        ({"freeze": "res2.0.con"}, "no stage or layer 'res2.0.con'"),
        ({"layer_decay": 0}, "weight.layer_decay=0; give a positive number"),
        ({"head_lr_factor": "a"}, "weight.head_lr_factor=a"),
        ({"head_lr_factor": float("nan")}, "weight.head_lr_factor=nan"),
    ],
)
def test_bad_values_are_one_line(values: dict[str, Any], message: str) -> None:
    construct: Callable[..., Any] = unwrap(FineTuning.__init__)  # below the hook, which refuses a wrong type first
    tuning = FineTuning.__new__(FineTuning)
    model = network()

    def use() -> None:
        construct(tuning, **values)
        tuning.frozen(model)

    with pytest.raises(InputError, match=message):
        use()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layer_decay": 1e308}, r"weight.layer_decay=1e\+308 makes a factor of .*; give a number nearer to 1"),
        ({"layer_decay": 1e30}, r"weight.layer_decay=1e\+30 makes a factor of 1.*e\+60"),
        ({"layer_decay": 10**400}, "weight.layer_decay=10* makes a factor of inf"),
        ({"layer_decay": 1e-300}, "weight.layer_decay=1e-300 makes a factor of 0.0"),  # it would freeze, and not say so
        ({"head_lr_factor": 1e300}, r"weight.head_lr_factor=1e\+300 makes"),
        ({"head_lr_factor": 10**400}, "weight.head_lr_factor=10* makes a factor of inf"),
    ],
)
def test_a_factor_that_no_learning_rate_bears(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FineTuning(**values).lr_factors(network())


def test_a_model_without_stages_is_told_so() -> None:
    with pytest.raises(InputError, match=r"Linear has no stages\(\)"):
        FineTuning(1).frozen(nn.Linear(2, 2))


@pytest.mark.parametrize("norm_weight_decay", [False, True])
def test_learning_rates_follow_the_stage(norm_weight_decay: bool) -> None:
    """One step of SGD without momentum or decay moves a parameter by lr times its gradient, so by the factor."""
    tuning = FineTuning(layer_decay=0.5, head_lr_factor=3.0)
    plain, scaled = network(), network()
    slow = torch.optim.SGD(parameter_groups(scaled, norm_weight_decay, tuning.lr_factors(scaled)), lr=0.1)
    scale_learning_rates(slow)
    start = {name: value.clone() for name, value in plain.named_parameters()}
    step(plain, torch.optim.SGD(plain.parameters(), lr=0.1))
    step(scaled, slow)
    expected = {"conv1": 0.5**4, "norm1": 0.5**4, "res2": 0.5**3, "res3": 0.5**2, "res4": 0.5, "head": 3.0}
    for (name, one), other in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        stage = name.split(".")[1] if name.startswith("trunk.") else "head"
        # Each difference is of fp32 numbers up to ~1: half an eps each way, of the parameter and of its update.
        atol = 4 * torch.finfo(torch.float32).eps * start[name].abs().max().item()
        torch.testing.assert_close(other - start[name], expected[stage] * (one - start[name]), atol=max(atol, 1e-9), rtol=1e-5)
    assert all(group["lr"] == 0.1 and "_lr" not in group for group in slow.param_groups)


def test_a_schedule_that_sets_all_rates_alike_is_still_scaled() -> None:
    """OneCycleLR writes its own lr into every group."""
    model = network()
    optimizer = torch.optim.SGD(parameter_groups(model, False, FineTuning(head_lr_factor=10.0).lr_factors(model)), lr=1.0)
    scale_learning_rates(optimizer)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=4, cycle_momentum=False)
    used: list[list[float]] = []
    optimizer.register_step_pre_hook(
        lambda o, *_: used.append([group["lr"] / schedule.get_last_lr()[0] for group in o.param_groups])
    )
    for _ in range(3):
        step(model, optimizer)
        schedule.step()
    factors = [group.get("lr_factor", 1.0) for group in optimizer.param_groups]
    assert sorted(set(factors)) == [1.0, 10.0]
    assert used == [pytest.approx(factors)] * 3
    assert len({group["lr"] for group in optimizer.param_groups}) == 1


def test_without_factors_there_are_the_two_groups() -> None:
    assert FineTuning().lr_factors(network()) == {}


def test_frozen_modules_are_in_evaluation_from_the_first_step_of_a_resumed_epoch_on() -> None:
    """A run that is resumed within an epoch has no start of an epoch, only of a step."""
    norm = nn.BatchNorm3d(2).train()
    unwrap(Freeze.on_train_batch_start)(Freeze([norm]), None, None, None, 7)
    assert not norm.training
