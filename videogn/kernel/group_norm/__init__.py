"""Group normalization with the residual addition and the activation in one call."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Literal

from torch import Tensor

from videogn.kernel.group_norm import aten, reference
from videogn.types import InputError

Activation = Literal["relu", "silu"]
Backend = Literal["reference", "aten", "triton"]

BACKENDS: dict[str, Callable[..., Tensor]] = {"reference": reference.group_norm, "aten": aten.group_norm}
if importlib.util.find_spec("triton"):  # it comes with torch on Linux
    from videogn.kernel.group_norm import operator

    BACKENDS["triton"] = operator.group_norm


def group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    num_groups: int,
    eps: float,
    residual: Tensor | None = None,
    activation: Activation | None = None,
    backend: Backend | None = None,
) -> Tensor:
    """activation((x - mean) / sqrt(var + eps) * weight + bias + residual), statistics per clip and group.

    mean and var (biased) are taken over the C/G channels of a group and every position.

    Args:
        x: (N, C, ...), for a clip (N, C, T, H, W); fp64, fp32, bf16 or fp16, contiguous or channels-last.
        weight, bias: (C,), gamma and beta; None leaves them out.
        num_groups: G, must divide C.
        eps: added to the variance, in units of x squared.
        residual: of the shape of x.
        activation: None, "relu" or "silu".
        backend: "reference" is the definition, "aten" torch's own kernel, "triton" ours for GPUs (on a CPU, the same
            operator in plain torch operations), which has no second derivative and no vmap; None takes "triton" on a GPU
            where it is installed, else "aten".

    Returns:
        A tensor with the shape, the dtype and the memory format of x, also under autocast.

    Raises:
        InputError: a shape, group count, activation or backend that does not fit.

    Source: Wu & He, Group Normalization, ECCV 2018, arXiv:1803.08494.
    """
    if x.ndim < 2 or not x.is_floating_point():
        raise InputError(f"GroupNorm: x is {_describe(x)}; it must be floating point, (N, C, ...)")
    check_groups(num_groups, x.shape[1])
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != x.shape[1:2]:
            raise InputError(f"GroupNorm: {name} is {_describe(parameter)}; x has {x.shape[1]} channels")
    if residual is not None and residual.shape != x.shape:
        raise InputError(f"GroupNorm: residual is {_describe(residual)}, x is {_describe(x)}; give both one shape")
    if activation not in (None, "relu", "silu"):
        raise InputError(f"GroupNorm: activation={activation!r}; use None, 'relu' or 'silu'")
    if backend is not None and backend not in BACKENDS:
        raise InputError(f"GroupNorm: backend={backend!r}; use one of {', '.join(BACKENDS)}")
    if backend is None:
        backend = "triton" if x.is_cuda and "triton" in BACKENDS else "aten"
    return BACKENDS[backend](x, weight, bias, num_groups, eps, residual, activation)


def check_groups(number: int, channels: int, name: str = "num_groups") -> None:
    """Raise InputError unless `number`, of groups or of the channels in each, divides `channels`."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 1 or channels % number:
        fitting = ", ".join(map(str, divisors(channels)))
        raise InputError(f"GroupNorm: {name}={number} does not divide channels={channels}; use one of {fitting}")


def divisors(channels: int) -> list[int]:
    """Every count of groups, or of channels in each, that fits; in rising order."""
    return [count for count in range(1, channels + 1) if channels % count == 0]


def _describe(x: Tensor) -> str:
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
