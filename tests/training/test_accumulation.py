"""Accumulated batches against one large batch, and clipped gradients against their definition, by Lightning's own trainer."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from videogn.configuration import compose, instantiate
from videogn.norm.group_norm import GroupNorm
from videogn.training.loss import CrossEntropy
from videogn.types import InputError

Weights = dict[str, Tensor]
DOUBLE = {"precision": "64-true"}
SGD = partial(torch.optim.SGD, lr=0.5, momentum=0.9, nesterov=True, weight_decay=1e-2)


def trained(
    memory: SimpleNamespace, norm: Callable[[], nn.Module], batches: list[list[int]], **options: Any
) -> dict[str, Tensor]:
    """The weights after training on batches of these rows."""
    network = memory.network(norm()).double()
    loss = CrossEntropy(0.1)
    loss.weight = torch.tensor([0.5, 1.0, 2.0])
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)
    memory.fit(memory.classifier(network, loss, SGD, schedule), [memory.batch(rows) for rows in batches], **DOUBLE, **options)
    return dict(network.named_parameters())


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).detach().abs().max()) for name in one)


def group_norm() -> nn.Module:
    return GroupNorm(4, num_groups=2)


def batch_norm() -> nn.Module:
    return nn.BatchNorm3d(4)


SMALL = [[row, row + 1] for row in range(0, 24, 2)]  # 12 batches
LARGE = [list(range(start, start + 6)) for start in range(0, 24, 6)]  # of three of them each


def test_with_group_norm_accumulated_batches_are_one_large_batch(memory: SimpleNamespace) -> None:
    """With momentum, decay, a schedule, smoothing and class weights, over two epochs of four steps."""
    options: dict[str, Any] = {"max_epochs": 2}
    large = trained(memory, group_norm, LARGE, **options)
    start = dict(memory.network(group_norm()).double().named_parameters())
    assert largest_difference(large, start) > 0.1
    # Eight steps of sums in another order: of weights of about 1 each leaves a few roundings.
    assert largest_difference(trained(memory, group_norm, SMALL, accumulate_grad_batches=3, **options), large) < 1e-13


def test_with_batch_norm_they_are_not(memory: SimpleNamespace) -> None:
    large = trained(memory, batch_norm, LARGE)
    assert largest_difference(trained(memory, batch_norm, SMALL, accumulate_grad_batches=3), large) > 1e-3


def test_the_last_group_of_an_epoch_steps_by_its_share(memory: SimpleNamespace) -> None:
    """Lightning divides by accumulate_grad_batches there too: 1 batch of 3 is a third of its gradient, in an epoch of 4."""
    plain = {"optimizer": partial(torch.optim.SGD, lr=0.5)}
    network = memory.network(group_norm()).double()
    memory.fit(
        memory.classifier(network, **plain), [memory.batch(rows) for rows in SMALL[:4]], accumulate_grad_batches=3, **DOUBLE
    )
    found = dict(network.named_parameters())
    network = memory.network(group_norm()).double()
    memory.fit(memory.classifier(network, **plain), [memory.batch(LARGE[0])], **DOUBLE)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    memory.fit(memory.classifier(network, **plain), [memory.batch(SMALL[3])], **DOUBLE)
    third = {name: before[name] + (value - before[name]) / 3 for name, value in network.named_parameters()}
    assert largest_difference(found, third) < 1e-14
    assert largest_difference(found, before) > 1e-3


def test_batches_count_alike_however_many_clips_they_have(memory: SimpleNamespace) -> None:
    """As where a video is dead: the clips of the smaller batch count more."""
    plain = {"optimizer": partial(torch.optim.SGD, lr=0.5)}
    network = memory.network(group_norm()).double()
    memory.fit(
        memory.classifier(network, **plain), [memory.batch([0, 1, 2]), memory.batch([3])], accumulate_grad_batches=2, **DOUBLE
    )
    weights = torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2], dtype=torch.float64)
    other = memory.network(group_norm()).double()
    inputs = memory.classifier(other).inputs(memory.batch([0, 1, 2, 3]))
    each = nn.functional.cross_entropy(other(inputs), torch.tensor([0, 1, 2, 0]), reduction="none")
    (each * weights).sum().backward()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter -= 0.5 * parameter.grad
    assert largest_difference(dict(network.named_parameters()), dict(other.named_parameters())) < 1e-14


@pytest.mark.parametrize(("algorithm", "limit"), [("norm", 0.01), ("value", 0.002)])
def test_gradients_are_clipped(memory: SimpleNamespace, algorithm: str, limit: float) -> None:
    def step(**options: Any) -> dict[str, Tensor]:
        """The gradient that a step of lr 1 took."""
        network = memory.network(group_norm()).double()
        before = {name: value.detach().clone() for name, value in network.named_parameters()}
        optimizer = partial(torch.optim.SGD, lr=1.0)
        memory.fit(memory.classifier(network, optimizer=optimizer), [memory.batch([0, 1, 2])], **DOUBLE, **options)
        return {name: before[name] - value.detach() for name, value in network.named_parameters()}

    whole, clipped = step(), step(gradient_clip_val=limit, gradient_clip_algorithm=algorithm)
    norm = math.sqrt(sum(float(g.square().sum()) for g in whole.values()))
    assert norm > 10 * limit
    for name, gradient in whole.items():
        expected = gradient * limit / norm if algorithm == "norm" else gradient.clamp(-limit, limit)
        # torch adds 1e-6 to the norm that it divides by.
        torch.testing.assert_close(clipped[name], expected, rtol=2e-6 / norm, atol=1e-15)


def test_the_trainers_keys_reach_lightning() -> None:
    words = [
        "trainer.gradient_clip_val=0.5",
        "trainer.gradient_clip_algorithm=value",
        "trainer.accumulate_grad_batches=4",
        "out=x",
    ]
    trainer = instantiate(compose("train", words).trainer, logger=False)
    assert (trainer.gradient_clip_val, trainer.gradient_clip_algorithm, trainer.accumulate_grad_batches) == (0.5, "value", 4)
    assert compose("train").trainer.gradient_clip_algorithm == "norm"
    with pytest.raises(InputError, match=r"Trainer: .*gradient_clip_algorithm.*; correct its configuration"):
        instantiate(compose("train", ["trainer.gradient_clip_algorithm=norms", "out=x"]).trainer)
