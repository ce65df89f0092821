"""Norm, residual and ReLU as one operator: the values and gradients of the three, to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from videogn.kernel.group_norm import add_relu, group_norm
from videogn.kernel.group_norm.add_relu import as_one_operator

EPS = 1e-5


def draw(dtype: torch.dtype = torch.float32, channels: int = 12, parameters: torch.dtype = torch.float32) -> list[Tensor]:
    """x, gamma, beta and a residual, all with gradients."""
    generator = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(2, channels, 3, 5, 7, generator=generator).to(dtype) for _ in range(2))
    weight, bias = (torch.randn(channels, generator=generator).to(parameters) for _ in range(2))
    return [tensor.requires_grad_() for tensor in (x, weight, bias, residual)]


def trained(given: list[Tensor], dy: Tensor) -> list[Tensor | None]:
    """The output, and the gradients of what asks for one."""
    x, weight, bias, residual = given = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in given]
    y = group_norm(x, weight, bias, 4, EPS, residual, "relu", "aten")
    y.backward(dy)
    return [y.detach(), *(tensor.grad for tensor in given)]


@pytest.mark.parametrize("changed", ["", "expanded", "frozen", "frozen_input", "no_residual_gradient", "fp64_residual"])
@pytest.mark.parametrize(
    ("dtype", "parameters"),
    [(torch.float32, torch.float32), (torch.float64, torch.float64), (torch.bfloat16, torch.float32)],
    ids=["fp32", "fp64", "bf16-mixed"],
)
def test_is_norm_sum_and_relu(dtype: torch.dtype, parameters: torch.dtype, changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = draw(dtype, parameters=parameters)
    dy = torch.randn(2, 12, 3, 5, 7).to(dtype)
    if changed == "expanded":
        dy = torch.ones((), dtype=dtype).expand(dy.shape)  # the gradient of a sum
    elif changed == "fp64_residual":
        given[3] = given[3].detach().double().requires_grad_()
    for tensor in {"frozen": given[1:3], "frozen_input": given[:1], "no_residual_gradient": given[3:]}.get(changed, []):
        tensor.requires_grad_(False)
    expected = trained(given, dy)
    called = []
    operator = add_relu.group_norm_add_relu
    monkeypatch.setattr(add_relu, "group_norm_add_relu", lambda *arguments: (called.append(1), operator(*arguments))[1])
    with as_one_operator():
        found = trained(given, dy)
    assert called
    for a, b in zip(expected, found, strict=True):
        assert (a is None and b is None) or (a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck itself reads it
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(dtype: torch.dtype) -> None:
    x, weight, bias, residual = draw(dtype)  # torch's own fake norm has the statistics in bf16 as well, its kernel has not
    opcheck(torch.ops.videogn.group_norm_add_relu.default, (x, weight, bias, 4, EPS, residual))


def _without_residual(given: list[Any]) -> None:
    given[3] = None


def _without_gamma(given: list[Any]) -> None:
    given[1] = None


def _channels_last(given: list[Any]) -> None:
    given[0] = given[0].detach().contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("activation", [None, "silu", "relu"])
@pytest.mark.parametrize("change", [None, _without_residual, _without_gamma, _channels_last])
def test_all_else_goes_the_other_way(change: Any, activation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = draw()
    if change is not None:
        change(given)
    expected = group_norm(*given[:3], 4, EPS, given[3], activation, "aten")
    called = []
    operator = add_relu.group_norm_add_relu
    monkeypatch.setattr(add_relu, "group_norm_add_relu", lambda *arguments: (called.append(1), operator(*arguments))[1])
    with as_one_operator():
        assert torch.equal(group_norm(*given[:3], 4, EPS, given[3], activation, "aten"), expected)
    assert bool(called) == (change is None and activation == "relu")
    assert torch.equal(group_norm(*given[:3], 4, EPS, given[3], activation, "aten"), expected)
    assert len(called) == int(change is None and activation == "relu")  # not outside of it
