"""Precise statistics against torch's mean and variance of everything a layer was given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from videogn.norm.batch_norm import BatchNorm
from videogn.training.precise_statistics import moments, store

EPS = torch.finfo(torch.float32).eps


def batches(sizes: list[int]) -> list[torch.Tensor]:
    """Whose means differ by more than what they spread: the mean of their variances is far from the variance of all."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 4, 2, 3, 3, generator=generator) + 10 * index for index, size in enumerate(sizes)]


def layer(**arguments: Any) -> BatchNorm:
    norm = BatchNorm(4, precise_batches=8, **arguments)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    return norm


@pytest.mark.parametrize("sizes", [[1], [2, 2], [1, 3, 2]], ids=str)
def test_are_those_of_all_batches_together(sizes: list[int]) -> None:
    norm = layer()
    store([norm], [moments(norm, [norm], batches(sizes))])
    everything = torch.cat(batches(sizes)).double().transpose(0, 1).flatten(1)
    # A few roundings of values up to 24, and of their squares.
    torch.testing.assert_close(norm.running_mean.double(), everything.mean(1), atol=8 * EPS * 24, rtol=0)
    torch.testing.assert_close(norm.running_var.double(), everything.var(1), atol=0, rtol=64 * EPS)


def test_a_later_layer_is_given_what_training_would_give_it() -> None:
    """The first layer normalizes by its batch, not by the statistics that are being made."""
    first, second = layer(), layer()
    network = nn.Sequential(first, nn.Conv3d(4, 4, 1), second).eval()
    inputs = batches([2, 1])
    store([first, second], [moments(network, [first, second], inputs)])
    given = torch.cat([network[1](nn.functional.batch_norm(x, None, None, first.weight, first.bias, True)) for x in inputs])
    everything = given.detach().double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(second.running_mean.double(), everything.mean(1), atol=64 * EPS * 10, rtol=0)
    torch.testing.assert_close(second.running_var.double(), everything.var(1), atol=0, rtol=256 * EPS)


def test_ranks_count_together() -> None:
    one, other, both = layer(), layer(), layer()
    parts = [moments(norm, [norm], inputs) for norm, inputs in ((one, batches([1, 3])), (other, batches([2])))]
    store([one], parts)
    store([both], [moments(both, [both], [*batches([1, 3]), *batches([2])])])
    torch.testing.assert_close(one.running_mean, both.running_mean, atol=8 * EPS * 14, rtol=0)
    torch.testing.assert_close(one.running_var, both.running_var, atol=0, rtol=64 * EPS)
    assert not torch.equal(one.running_mean, torch.zeros(4))


def test_without_a_batch_they_stay() -> None:
    norm = layer()
    norm.running_mean.fill_(3)
    store([norm], [moments(norm, [norm], []), moments(norm, [norm], [])])
    assert norm.running_mean.tolist() == [3.0] * 4
    assert norm.running_var.tolist() == [1.0] * 4


@pytest.mark.parametrize("momentum", [0.1, None])
def test_leave_everything_else_as_it_was(momentum: float | None) -> None:
    norm = layer(momentum=momentum)
    network = nn.Sequential(nn.Dropout(), norm)
    network[0].eval()
    norm(batches([1])[0])
    before = norm.num_batches_tracked.clone(), norm.momentum
    moments(network, [norm], batches([2, 2]))
    assert (norm.num_batches_tracked, norm.momentum) == before
    assert [module.training for module in network.modules()] == [True, False, True]
    x = batches([1])[0]
    norm(x)
    assert norm.num_batches_tracked == 2  # no hook is left that would count, or fail
