"""Fused group normalization as torch operators, so that autograd, torch.compile, checkpointing and export see one node.

`videogn::group_norm` and `videogn::group_norm_backward` run Triton on a GPU. On a CPU they run the plain torch operations
below: the same outputs, saved tensors and packed masks, by which the operators are checked on a machine without a GPU.
Nothing here is on autocast's lists, so bf16 stays bf16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from videogn.kernel.group_norm import triton

# Not torch.library.triton_op: tracing one asks the GPU's driver which arguments the kernels write, and where there is none
# (an export on a CPU, a test) takes all of them for written.
_TRITON_DEVICES = ("cuda", "cpu") if triton.INTERPRETED else "cuda"


@custom_op("videogn::group_norm", mutates_args=(), device_types=_TRITON_DEVICES)
def group_norm_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    residual: Tensor | None,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, mean, rstd and the mask of `triton.Saved`; x and residual dense in one layout, weight and bias fp32 (or fp64)."""
    with torch.cuda.device_of(x):
        return tuple(triton.forward(x, weight, bias, num_groups, eps, residual, activation))  # pyright: ignore[reportReturnType]


@custom_op("videogn::group_norm_backward", mutates_args=(), device_types=_TRITON_DEVICES)
def group_norm_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    residual: Tensor | None,
    mask: Tensor,
    num_groups: int,
    activation: str | None,
    with_residual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dx, dgamma, dbeta and the residual's gradient, which is empty where it is dy itself."""
    with torch.cuda.device_of(x):
        return triton.backward(dy, x, weight, bias, mean, rstd, residual, mask, num_groups, activation, with_residual)


def group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    num_groups: int,
    eps: float,
    residual: Tensor | None,
    activation: str | None,
) -> Tensor:
    """The backend "triton": arguments as the operator wants them; autograd undoes the casts."""
    layout = triton.memory_format(x)
    accumulate = torch.promote_types(x.dtype, torch.float32)
    weight = x.new_ones(x.shape[1], dtype=accumulate) if weight is None else weight.to(accumulate)
    bias = x.new_zeros(x.shape[1], dtype=accumulate) if bias is None else bias.to(accumulate)
    if residual is not None:
        residual = residual.to(x.dtype).contiguous(memory_format=layout)
    return group_norm_forward(x.contiguous(memory_format=layout), weight, bias, num_groups, eps, residual, activation)[0]


@group_norm_forward.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    residual: Tensor | None,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(triton.allocate(x, num_groups, residual is not None, activation))  # pyright: ignore[reportReturnType]


@group_norm_backward.register_fake
def _(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    residual: Tensor | None,
    mask: Tensor,
    num_groups: int,
    activation: str | None,
    with_residual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dz = torch.empty_like(x) if with_residual and activation is not None else x.new_empty(0)
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias), dz


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, num_groups, _, residual, activation = inputs
    _, mean, rstd, mask = output
    # The sum that went into SiLU is computed again; ReLU needs one bit of it.
    ctx.save_for_backward(x, weight, bias, mean, rstd, residual if activation == "silu" else None, mask)
    ctx.num_groups, ctx.activation, ctx.with_residual = num_groups, activation, residual is not None
    ctx.mark_non_differentiable(mean, rstd, mask)


def _differentiate(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, rstd, residual, mask = ctx.saved_tensors
    dy = dy.contiguous(memory_format=triton.memory_format(x))
    dx, dweight, dbias, dz = group_norm_backward(
        dy, x, weight, bias, mean, rstd, residual, mask, ctx.num_groups, ctx.activation, ctx.with_residual
    )
    dresidual = None if not ctx.with_residual else dy if ctx.activation is None else dz
    return dx, dweight, dbias, None, None, dresidual, None


group_norm_forward.register_autograd(_differentiate, setup_context=_save)


def _on_cpu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    residual: Tensor | None,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    saved = triton.allocate(x, num_groups, residual is not None, activation)
    if x.numel() == 0:
        return tuple(saved)  # pyright: ignore[reportReturnType]
    groups = x.to(saved.mean.dtype).reshape(x.shape[0], num_groups, -1)
    variance, mean = torch.var_mean(groups, -1, correction=0)
    saved.mean.copy_(mean)
    saved.rstd.copy_(torch.rsqrt(variance + eps))
    z = _sum(x, weight, bias, saved.mean, saved.rstd, residual)
    if saved.mask.numel():
        saved.mask.copy_(_pack(~(z <= 0)))
    if activation is not None:
        z = z.relu() if activation == "relu" else torch.nn.functional.silu(z)
    saved.y.copy_(z)
    return tuple(saved)  # pyright: ignore[reportReturnType]


def _backward_on_cpu(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    residual: Tensor | None,
    mask: Tensor,
    num_groups: int,
    activation: str | None,
    with_residual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    precise = mean.dtype
    if x.numel() == 0:
        kept = torch.empty_like(x) if with_residual and activation is not None else x.new_empty(0)
        return torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias), kept
    dz = dy.to(precise)
    if activation == "relu":
        dz = dz * (_unpack(mask, x) if with_residual else ~(_sum(x, weight, bias, mean, rstd, None) <= 0))
    elif activation == "silu":
        dz = torch.ops.aten.silu_backward(dz, _sum(x, weight, bias, mean, rstd, residual))
    kept = torch.empty_like(x).copy_(dz) if with_residual and activation is not None else x.new_empty(0)

    per_clip, per_channel = (x.shape[0], num_groups, -1), (1, -1, *[1] * (x.ndim - 2))
    groups = (x.to(precise).reshape(per_clip) - mean[..., None]) * rstd[..., None]
    xhat = groups.reshape(x.shape)
    axes = [0, *range(2, x.ndim)]
    scaled = (dz * weight.view(per_channel)).reshape(per_clip)
    dx = rstd[..., None] * (scaled - scaled.mean(-1, keepdim=True) - groups * (scaled * groups).mean(-1, keepdim=True))
    return torch.empty_like(x).copy_(dx.reshape(x.shape)), (dz * xhat).sum(axes), dz.sum(axes), kept


def _sum(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, residual: Tensor | None) -> Tensor:
    """What goes into the activation, in the precision of the statistics."""
    width = x.shape[1] // mean.shape[1]
    per_clip, per_channel = (*mean.repeat_interleave(width, 1).shape, *[1] * (x.ndim - 2)), (1, -1, *[1] * (x.ndim - 2))
    scale = rstd.repeat_interleave(width, 1).view(per_clip) * weight.view(per_channel)
    z = (x.to(mean.dtype) - mean.repeat_interleave(width, 1).view(per_clip)) * scale + bias.view(per_channel)
    return z if residual is None else z + residual.to(z.dtype)


def _pack(bits: Tensor) -> Tensor:
    """One bit an element, along the axis that is contiguous in memory: `triton.mask_shape`."""
    rows = bits.flatten(2).mT if triton.is_channels_last(bits) else bits.flatten(2)
    rows = torch.nn.functional.pad(rows.to(torch.uint8), (0, -rows.shape[-1] % 8)).unflatten(-1, (-1, 8))
    return (rows << torch.arange(8, dtype=torch.uint8)).sum(-1, dtype=torch.uint8)


def _unpack(mask: Tensor, x: Tensor) -> Tensor:
    """The bits of `_pack` in the shape of x."""
    bits = ((mask[..., None] >> torch.arange(8, dtype=torch.uint8)) & 1).bool().flatten(2)
    if triton.is_channels_last(x):
        return bits[..., : x.shape[1]].mT.reshape(x.shape)
    return bits[..., : x.shape[2:].numel()].reshape(x.shape)


if not triton.INTERPRETED:  # TRITON_INTERPRET=1 runs the kernels themselves on the CPU
    group_norm_forward.register_kernel("cpu")(_on_cpu)
    group_norm_backward.register_kernel("cpu")(_backward_on_cpu)
