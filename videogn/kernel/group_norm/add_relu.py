"""Group normalization, a residual's sum and a ReLU by torch's operators, as one operator.

A checkpoint sees operators, and what reads this one's output keeps it in any case: told to save it, a checkpoint computes none of
the three again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

_AS_ONE: ContextVar[bool] = ContextVar("as_one", default=False)


@contextmanager
def as_one_operator() -> Iterator[None]:
    """Within, the backend "aten" takes `group_norm_add_relu` where it fits: the same values and gradients, to the last bit."""
    token = _AS_ONE.set(True)
    try:
        yield
    finally:
        _AS_ONE.reset(token)


def fits(x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, activation: str | None) -> bool:
    """Whether it is asked for, and is what the arguments of `aten.group_norm` say."""
    there = weight is not None and bias is not None and residual is not None
    return _AS_ONE.get() and there and activation == "relu" and x.device.type == "cpu" and x.is_contiguous()


@custom_op("videogn::group_norm_add_relu", mutates_args=(), device_types="cpu")
def group_norm_add_relu(
    x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float, residual: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """relu(group_norm(x) + residual), mean and rstd; x contiguous. It has no second derivative."""
    y, mean, rstd = torch.native_group_norm(x, weight, bias, *_shape(x), num_groups, eps)
    y += residual
    return y.relu_(), mean, rstd


@group_norm_add_relu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, rstd = (weight.new_empty(x.shape[0], num_groups) for _ in range(2))
    return torch.empty_like(x), mean, rstd


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, _, num_groups, _, residual = inputs
    y, mean, rstd = output
    ctx.save_for_backward(x, weight, mean, rstd, y)
    ctx.num_groups, ctx.residual_dtype = num_groups, residual.dtype
    ctx.mark_non_differentiable(mean, rstd)


def _differentiate(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, mean, rstd, y = ctx.saved_tensors
    dz = torch.ops.aten.threshold_backward(dy, y, 0).contiguous()
    wanted = list(ctx.needs_input_grad[:3])
    dx, dweight, dbias = torch.ops.aten.native_group_norm_backward(dz, x, mean, rstd, weight, *_shape(x), ctx.num_groups, wanted)
    return dx, dweight, dbias, None, None, dz.to(ctx.residual_dtype)


group_norm_add_relu.register_autograd(_differentiate, setup_context=_save)


def _shape(x: Tensor) -> tuple[int, int, int]:
    """N, C and the positions of a channel."""
    return x.shape[0], x.shape[1], x.shape[2:].numel()
