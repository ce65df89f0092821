"""Batch renormalization: batch statistics, corrected towards the running ones."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from videogn.norm.norm import Activation, Norm
from videogn.number import is_count, is_number
from videogn.types import InputError


class BatchRenorm(Norm, nn.BatchNorm3d):  # pyright: ignore[reportIncompatibleMethodOverride] - torch's x is `input`
    """Normalizes each channel over (N, T, H, W), and moves the result to where the running statistics would put it:

        y = activation(((x - mean) / sqrt(var + eps) * r + d) * gamma + beta + residual)
        r = clip(sqrt(var + eps) / sqrt(running_var + eps), 1 / r_max, r_max)
        d = clip((mean - running_mean) / sqrt(running_var + eps), -d_max, d_max)

    mean and var (biased) are the batch's; no gradient flows through r and d. In evaluation y = activation((x - running_mean) /
    sqrt(running_var + eps) * gamma + beta + residual). After every training batch both averages move by `momentum` towards the
    batch's (the paper averages the standard deviation; the variance keeps torch's state keys). Inside the limits training and
    evaluation agree. Training starts as BatchNorm: the limits are 1 and 0 for `warmup_steps` batches, then grow linearly and are
    reached after `r_max_steps` and `d_max_steps`. State keys as torch.nn.BatchNorm3d; num_batches_tracked counts the batches.

    Args:
        channels: C.
        activation: None, "relu" or "silu".
        zero_init: gamma starts at 0.
        eps: added to the variance, in units of x squared.
        momentum: share of the newest batch in the running averages; None keeps the plain mean of all batches.
        r_max: at least 1.
        d_max: at least 0.
        warmup_steps, r_max_steps, d_max_steps: in training batches; 0, 0, 0 has the full limits from the start.

    Raises:
        InputError: limits or steps out of range.

    Source: Ioffe, Batch Renormalization, NIPS 2017, arXiv:1702.03275 (its steps; its limits are 3 and 5). Wu & He 2018 compare
    with r_max 1.5 and d_max 0.5.
    """

    def __init__(
        self,
        channels: int,
        activation: Activation | None = None,
        zero_init: bool = False,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        r_max: float = 1.5,
        d_max: float = 0.5,
        warmup_steps: int = 5000,
        r_max_steps: int = 40000,
        d_max_steps: int = 25000,
    ) -> None:
        if not (is_number(r_max, 1) and is_number(d_max)):
            raise InputError(f"BatchRenorm: r_max={r_max} d_max={d_max}; r_max is at least 1 and d_max at least 0")
        steps = (warmup_steps, r_max_steps, d_max_steps)
        if not all(map(is_count, steps)) or warmup_steps > min(steps):
            raise InputError(
                f"BatchRenorm: warmup_steps={warmup_steps} r_max_steps={r_max_steps} d_max_steps={d_max_steps}; the limits are "
                "reached after the warm-up: 0 <= warmup_steps <= r_max_steps, d_max_steps"
            )
        self.r_max = r_max
        self.d_max = d_max
        self.warmup_steps = warmup_steps
        self.r_max_steps = r_max_steps
        self.d_max_steps = d_max_steps
        super().__init__(channels, activation, zero_init, num_features=channels, eps=eps, momentum=momentum)

    # torch's class declares these as optional, but ours always have them.
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    def normalize(self, x: Float[Tensor, "N C *S"]) -> Float[Tensor, "N C *S"]:
        """((x - mean) / sqrt(var + eps) * r + d) * gamma + beta, or with the running statistics in evaluation"""
        if not self.training:
            return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        with torch.no_grad():
            var, mean = torch.var_mean(x.float() if x.dtype != torch.float64 else x, [0, *range(2, x.ndim)], correction=0)
            r_limit, d_limit = self.limits()
            running_std = torch.sqrt(self.running_var + self.eps)
            r = torch.clamp(torch.sqrt(var + self.eps) / running_std, 1 / r_limit, r_limit)
            d = torch.clamp((mean - self.running_mean) / running_std, -d_limit, d_limit)
            self.num_batches_tracked += 1
            # A tensor, since reading the count would wait for the device.
            share = 1 / self.num_batches_tracked.to(var.dtype) if self.momentum is None else var.new_tensor(self.momentum)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share.to(self.running_mean.dtype))
            self.running_var.lerp_(var.to(self.running_var.dtype), share.to(self.running_var.dtype))
        # r and d are numbers of the batch to autograd, so they join gamma and beta, and torch's kernel does the rest.
        weight, bias = self.weight * r, self.weight * d + self.bias
        return functional.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)

    def limits(self) -> tuple[Tensor, Tensor]:
        """r_max and d_max at this batch, as tensors: the count lies on the device, and reading it would wait for it."""

        def grown(reached: int) -> Tensor:
            passed = (self.num_batches_tracked - self.warmup_steps).float()
            return (passed / max(reached - self.warmup_steps, 1)).clamp(0, 1) if reached else torch.ones_like(passed)

        return 1 + (self.r_max - 1) * grown(self.r_max_steps), self.d_max * grown(self.d_max_steps)

    def reset_parameters(self) -> None:
        """gamma = 1, or 0 with `zero_init`; beta = 0; running mean 0, variance 1; no batch seen."""
        self.reset_running_stats()
        super().reset_parameters()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps}, momentum={self.momentum}, r_max={self.r_max}, d_max={self.d_max}"
