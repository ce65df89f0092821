"""The definition of fused group normalization: plain, slow, and what every other backend is held to."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    num_groups: int,
    eps: float,
    residual: Tensor | None,
    activation: str | None,
) -> Tensor:
    """Centered, two passes, in fp32 (fp64 stays fp64); rounded to the dtype of `x` once, at the end."""
    precise = torch.promote_types(x.dtype, torch.float32)
    per_channel = (1, -1) + (1,) * (x.ndim - 2)
    groups = x.to(precise).unflatten(1, (num_groups, -1))
    over = tuple(range(2, groups.ndim))

    # Center first: E[x^2] - E[x]^2 cancels, even below zero, once |mean| >> std.
    centered = groups - groups.mean(over, keepdim=True)
    variance = centered.square().mean(over, keepdim=True)
    y = (centered * torch.rsqrt(variance + eps)).flatten(1, 2)

    if weight is not None:
        y = y * weight.to(precise).reshape(per_channel)
    if bias is not None:
        y = y + bias.to(precise).reshape(per_channel)
    if residual is not None:
        y = y + residual.to(precise)
    if activation == "relu":
        y = functional.relu(y)
    elif activation == "silu":
        y = functional.silu(y)
    return y.to(x.dtype)
