"""Batch normalization over the batches of all devices."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from videogn.norm.norm import Activation, Norm


class SyncBatchNorm(Norm, _BatchNorm):  # pyright: ignore[reportIncompatibleMethodOverride] - torch's x is `input`
    """Normalizes each channel over (N, T, H, W) of the batches of all devices together:

        y = activation((x - mean) / sqrt(var + eps) * gamma + beta + residual)

    In evaluation, and without a process group, it is BatchNorm. On a GPU torch's own SyncBatchNorm computes; on a CPU, where
    torch has none, the same sums go through all_reduce. It is a torch _BatchNorm but no torch SyncBatchNorm, which DDP refuses
    there. A rank without clips must take part all the same, with a batch of none. State keys as torch.nn.BatchNorm3d.

    Args:
        channels: C.
        activation: None, "relu" or "silu".
        zero_init: gamma starts at 0.
        eps: added to the variance, in units of x squared.
        momentum: share of the newest batch in the running averages; None keeps the plain mean of all batches.

    Source: Peng et al., MegDet, CVPR 2018, arXiv:1711.07240.
    """

    def __init__(
        self,
        channels: int,
        activation: Activation | None = None,
        zero_init: bool = False,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
    ) -> None:
        super().__init__(channels, activation, zero_init, num_features=channels, eps=eps, momentum=momentum)

    # Says that every rank must call it at every step.
    meets_other_ranks = True
    # What torch's SyncBatchNorm.forward asks of its layer.
    process_group = None
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    # torch's class declares these as optional, but ours always have them.
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    def normalize(self, x: Float[Tensor, "N C *S"]) -> Float[Tensor, "N C *S"]:
        """torch.nn.SyncBatchNorm, on a CPU too"""
        if not self.training or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return _BatchNorm.forward(self, x)
        if x.device.type == "cpu":
            return self._normalize_on_cpu(x)
        return nn.SyncBatchNorm.forward(self, x)  # pyright: ignore[reportArgumentType] - it has all that this asks for

    def _check_input_dim(self, input: Tensor) -> None:
        nn.SyncBatchNorm._check_input_dim(self, input)  # pyright: ignore[reportArgumentType]

    def _normalize_on_cpu(self, x: Float[Tensor, "N C *S"]) -> Float[Tensor, "N C *S"]:
        over = [0, *range(2, x.ndim)]
        wide = x if x.dtype == torch.float64 else x.float()
        count = x.new_full((1,), x.numel() // x.shape[1], dtype=wide.dtype)
        # A rank without clips adds nothing; its mean would be 0 / 0.
        own_mean = wide.sum(over) / count.clamp(min=1)
        own_m2 = (wide - own_mean.reshape(_per_channel(x))).square().sum(over)
        # Every rank fills its own row; the sum over ranks is the table of all, with a gradient.
        rows = [torch.zeros(2 * x.shape[1] + 1, dtype=wide.dtype)] * torch.distributed.get_world_size()
        rows[torch.distributed.get_rank()] = torch.cat([count, own_mean, own_m2])
        counts, means, m2s = _SumOverRanks.apply(torch.stack(rows)).split([1, x.shape[1], x.shape[1]], 1)
        # Chan et al.: the moments of a union from those of its parts, without E[x^2] - E[x]^2.
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        var = (m2s + counts * (means - mean).square()).sum(0) / total
        with torch.no_grad():
            self.num_batches_tracked += 1
            share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_((var * total / (total - 1)).to(self.running_var.dtype), share)
        scale = self.weight * torch.rsqrt(var + self.eps)
        centered = wide - mean.reshape(_per_channel(x))
        return (centered * scale.reshape(_per_channel(x)) + self.bias.reshape(_per_channel(x))).to(x.dtype)

    def reset_parameters(self) -> None:
        """gamma = 1, or 0 with `zero_init`; beta = 0; running mean 0, variance 1."""
        self.reset_running_stats()
        super().reset_parameters()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps}, momentum={self.momentum}"


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks; its gradient is the sum of theirs. torch's own such functions warn or come and go."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total


def _per_channel(x: Tensor) -> tuple[int, ...]:
    return (1, -1) + (1,) * (x.ndim - 2)
