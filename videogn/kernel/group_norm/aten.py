"""Group normalization by torch's own operator, and the rest in place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from videogn.kernel.group_norm import add_relu


def group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    num_groups: int,
    eps: float,
    residual: Tensor | None,
    activation: str | None,
) -> Tensor:
    """torch.group_norm, then residual and activation; the dtype of `x` goes through, also under autocast."""
    if x.is_cuda and torch.is_autocast_enabled("cuda"):
        # Autocast would run it in fp32: 32 bytes an element forward for GN + ReLU instead of 10 in bf16.
        with torch.autocast("cuda", enabled=False):
            return group_norm(x, weight, bias, num_groups, eps, residual, activation)
    dtype = x.dtype
    if x.device.type == "cpu" and x.ndim in (4, 5) and not x.is_contiguous():
        # In fp32, so that a difference is not rounded to 16 bits before it is normalized.
        x = x.to(torch.promote_types(dtype, torch.float32))
        x = x - _group_means(x, num_groups)
    if x.is_cuda and weight is not None and bias is not None:
        # The CUDA kernel takes one dtype only; gamma and beta round as the output does.
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    if add_relu.fits(x, weight, bias, residual, activation):
        return add_relu.group_norm_add_relu(x, weight, bias, num_groups, eps, residual)[0].to(dtype)
    # Not functional.group_norm: it refuses one value a group, but only where the batch is one clip.
    y = torch.group_norm(x, num_groups, weight, bias, eps)
    # In place, since the backward of group_norm reads x and not y: with a residual, forward + backward of
    # 8 x 32 x 8 x 20 x 20 take 1.15 ms and not 1.54 on 2 cores.
    if residual is not None:
        y += residual
    if activation == "relu":
        y = y.relu_()
    elif activation == "silu":
        y = functional.silu(y)  # its backward reads its input: in place, autograd would copy that first
    return y.to(dtype)


@torch.no_grad()
def _group_means(x: Tensor, num_groups: int) -> Tensor:
    """The mean of each group, as (N, C, 1, ...).

    torch's channels-last kernel computes E[x^2] - E[x]^2: with mean 1e3 and std 1 its fp32 output is wrong by 1e3.
    A group's norm does not change when a constant is taken off, so this needs no gradient.
    """
    num_clips, channels = x.shape[:2]
    means = x.flatten(2).mean(2).reshape(num_clips, num_groups, -1).mean(-1, keepdim=True)
    return means.expand(-1, -1, channels // num_groups).reshape(num_clips, channels, *[1] * (x.ndim - 2))
