"""Rewritten graphs against the definition in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from videogn.conv.weight_standardized import WeightStandardizedConv3d
from videogn.export.rewrite import cast, drop_idle, fold_batch_norm, fold_constants
from videogn.norm.batch_norm import BatchNorm
from videogn.norm.group_norm import GroupNorm

EPS = torch.finfo(torch.float32).eps


def graph(network: nn.Module, x: Tensor) -> Any:
    module: Any = torch.export.export(network.eval(), (x,)).module(check_guards=False)
    drop_idle(module)
    return module


def operators(module: fx.GraphModule) -> list[str]:
    return [str(node.target).split(".")[1] for node in module.graph.nodes if node.op == "call_function"]


def trained(norm: BatchNorm) -> BatchNorm:
    """As after a training: nothing at its starting value, and a mean far from zero."""
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
        norm.running_mean.normal_(30)
        norm.running_var.uniform_(0.1, 4)
    return norm


@pytest.mark.parametrize("bias", [False, True])
def test_a_folded_batch_norm_is_gone_and_gives_the_same(bias: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(3, 5, (1, 3, 3), bias=bias, stride=2), trained(BatchNorm(5, activation="relu")))
    x = torch.randn(2, 3, 4, 9, 9)
    module = graph(network, x)
    assert fold_batch_norm(module) == 1
    assert operators(module) == ["conv3d", "relu"]
    with torch.no_grad():
        expected = network.double()(x.double())
        scale = float((network[1].weight * torch.rsqrt(network[1].running_var + 1e-5)).max())
    # A weight and a bias rounded once, a sum of 27 products: each term, and the bias of up to 30 / sqrt(0.1) * 2, by EPS.
    allowed = 27 * EPS * (30 * scale + float(expected.abs().max()))
    torch.testing.assert_close(module(x), expected.float(), atol=allowed, rtol=0)
    assert not any("running" in name for name, _ in module.named_buffers())


def test_a_convolution_with_a_second_reader_keeps_its_batch_norm() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv3d(3, 4, 1), trained(BatchNorm(4))

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.norm(y) * y

    x = torch.randn(1, 3, 2, 3, 3)
    network = Split()
    module = graph(network, x)
    assert fold_batch_norm(module) == 0
    assert torch.equal(module(x), network(x))


def test_two_convolutions_that_share_a_weight_are_folded_each_for_itself() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(3, 3, 1)
            self.one, self.other = trained(BatchNorm(3)), trained(BatchNorm(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.other(self.conv(self.one(self.conv(x))))

    x = torch.randn(1, 3, 2, 3, 3)
    network = Shared()
    module = graph(network, x)
    expected = network(x)
    assert fold_batch_norm(module) == 2
    torch.testing.assert_close(module(x), expected, atol=float(expected.detach().abs().max()) * 100 * EPS, rtol=0)


def test_a_standardized_weight_becomes_a_constant() -> None:
    network = WeightStandardizedConv3d(3, 4, (1, 3, 3))
    x = torch.randn(1, 3, 2, 5, 5)
    module = graph(network, x)
    assert fold_constants(module) == 1
    assert operators(module) == ["conv3d"]
    assert torch.equal(module(x), network(x))


def test_norms_compute_in_float32_among_16_bit_convolutions() -> None:
    class Seen(fx.Interpreter):
        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            seen.append((str(target).split(".")[1], args[0].dtype))
            return super().call_function(target, args, kwargs)

    seen: list[tuple[str, torch.dtype]] = []
    network = nn.Sequential(nn.Conv3d(3, 32, 1), GroupNorm(32, activation="relu", num_groups=4), nn.Conv3d(32, 2, 1))
    # Sums of a group's squares are 1e8 here, beyond what fp16 holds.
    x = 300 * torch.randn(1, 3, 4, 20, 20)
    module = graph(network, x)
    cast(module, torch.float16)
    with torch.no_grad():
        scores, expected = Seen(module).run(x), network(x)
    assert scores.dtype == torch.float32
    kinds = {name: {dtype for found, dtype in seen if found == name} for name, _ in seen}
    assert kinds["conv3d"] == {torch.float16}
    assert kinds["group_norm"] == {torch.float32}
    # Four roundings to 11 bits between input and output, of values up to a few times the largest output.
    assert float((scores - expected).abs().max()) < 16 * 2**-11 * float(expected.abs().max())


def test_dropout_and_casts_that_do_nothing_are_taken_out() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return functional.relu(self.dropout(x.to(torch.float32)) + 1)

    module = graph(Idle(), torch.randn(2, 3))
    assert operators(module) == ["add", "relu"]
