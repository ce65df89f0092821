"""Group normalization: the statistics of a clip, never of its batch."""

from __future__ import annotations

import warnings
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from videogn.kernel.group_norm import BACKENDS, Backend, check_groups, divisors, group_norm
from videogn.norm.norm import Activation, Norm
from videogn.number import is_count
from videogn.types import InputError


class GroupNorm(Norm, nn.GroupNorm):
    """Normalizes each clip over the C/G channels of a group and (T, H, W):

        y = activation((x - mean) / sqrt(var + eps) * gamma + beta + residual)

    var is the biased variance. No running statistics: training and inference are one function, and a clip's output does
    not depend on its neighbours in the batch. State keys as torch.nn.GroupNorm: weight, bias.

    Args:
        channels: C.
        activation: None, "relu" or "silu".
        zero_init: gamma starts at 0.
        num_groups: G, which must divide C; 1 is LayerNorm over (C, T, H, W), C is InstanceNorm. None is 32, the paper's,
            unless `channels_per_group` is given.
        channels_per_group: C/G, which must divide C; in place of `num_groups`.
        eps: added to the variance, in units of x squared.
        on_indivisible: where the number does not divide C, "error" refuses; "nearest" takes the divisor of C nearest to it
            (of two equally near the one with more values a group) and warns which.
        backend: of videogn.kernel.group_norm; None chooses by device.

    Raises:
        InputError: the number does not divide C, both numbers are given, or an unknown `on_indivisible` or `backend`.

    Source: Wu & He, Group Normalization, ECCV 2018, arXiv:1803.08494.
    """

    fuses_tail = True

    def __init__(
        self,
        channels: int,
        activation: Activation | None = None,
        zero_init: bool = False,
        *,
        num_groups: int | None = None,
        channels_per_group: int | None = None,
        eps: float = 1e-5,
        on_indivisible: Literal["error", "nearest"] = "error",
        backend: Backend | None = None,
    ) -> None:
        if on_indivisible not in ("error", "nearest"):
            raise InputError(f"GroupNorm: on_indivisible={on_indivisible!r}; use 'error' or 'nearest'")
        if backend is not None and backend not in BACKENDS:
            raise InputError(f"GroupNorm: backend={backend!r}; use one of {', '.join(BACKENDS)}, or null")
        self.backend: Backend | None = backend
        if num_groups is not None and channels_per_group is not None:
            raise InputError(
                f"GroupNorm: num_groups={num_groups} and channels_per_group={channels_per_group}; "
                "give one, and null for the other"
            )
        if channels_per_group is None:
            num_groups = _divisor("num_groups", 32 if num_groups is None else num_groups, channels, on_indivisible)
        else:
            num_groups = channels // _divisor("channels_per_group", channels_per_group, channels, on_indivisible)
        super().__init__(channels, activation, zero_init, num_groups=num_groups, num_channels=channels, eps=eps)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch calls x `input`
        self, x: Float[Tensor, "N C *S"], residual: Float[Tensor, "N C *S"] | None = None
    ) -> Float[Tensor, "N C *S"]:
        """The kernel does the tail too."""
        return group_norm(x, self.weight, self.bias, self.num_groups, self.eps, residual, self.activation, self.backend)

    def normalize(self, x: Float[Tensor, "N C *S"]) -> Float[Tensor, "N C *S"]:
        """(x - mean) / sqrt(var + eps) * gamma + beta"""
        return group_norm(x, self.weight, self.bias, self.num_groups, self.eps, backend=self.backend)

    def extra_repr(self) -> str:
        return f"G={self.num_groups}, {super().extra_repr()}, eps={self.eps}"


def _divisor(name: str, number: int, channels: int, on_indivisible: str) -> int:
    """`number` if it divides the channels, or the divisor that `on_indivisible` allows in its place."""
    if not is_count(number, 1) or on_indivisible == "error" or channels % number == 0:
        try:
            check_groups(number, channels, name)
        except InputError as error:
            if not is_count(number, 1):
                raise
            # A model has many widths, and no number may divide them all.
            raise InputError(f"{error}; or norm.on_indivisible=nearest, which takes the nearest one at every width") from None
        return number
    # Of two equally near, the fewer groups or the more channels in each: the one with more values a group.
    fitting = divisors(channels) if name == "num_groups" else divisors(channels)[::-1]
    nearest = min(fitting, key=lambda divisor: abs(divisor - number))
    num_groups = nearest if name == "num_groups" else channels // nearest
    warnings.warn(
        f"GroupNorm: {name}={number} does not divide channels={channels}; takes the nearest divisor, {nearest}: "
        f"{num_groups} groups of {channels // num_groups}",
        stacklevel=3,
    )
    return nearest
