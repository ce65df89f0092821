"""Group normalization: the statistics of a clip, never of its batch."""

from __future__ import annotations

import warnings
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from videogn.kernel.group_norm import check_groups, divisors, group_norm
from videogn.norm.norm import Activation, Norm
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
        num_groups: G, which must divide C; 1 is LayerNorm over (C, T, H, W), C is InstanceNorm.
        eps: added to the variance, in units of x squared.
        on_indivisible: where G does not divide C, "error" refuses; "nearest" takes the divisor of C nearest to G (of
            two equally near the smaller, which has more values a group) and warns which.

    Raises:
        InputError: G does not divide C, or an unknown `on_indivisible`.

    Source: Wu & He, Group Normalization, ECCV 2018, arXiv:1803.08494.
    """

    def __init__(
        self,
        channels: int,
        activation: Activation | None = None,
        zero_init: bool = False,
        *,
        num_groups: int = 32,
        eps: float = 1e-5,
        on_indivisible: Literal["error", "nearest"] = "error",
    ) -> None:
        if on_indivisible not in ("error", "nearest"):
            raise InputError(f"GroupNorm: on_indivisible={on_indivisible!r}; use 'error' or 'nearest'")
        if on_indivisible == "nearest" and channels % num_groups:
            asked = num_groups
            num_groups = min(divisors(channels), key=lambda count: abs(count - asked))
            warnings.warn(
                f"GroupNorm: num_groups={asked} does not divide channels={channels}; "
                f"takes the nearest divisor, {num_groups} groups",
                stacklevel=2,
            )
        check_groups(num_groups, channels)
        super().__init__(channels, activation, zero_init, num_groups=num_groups, num_channels=channels, eps=eps)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch calls x `input`
        self, x: Float[Tensor, "N C T H W"], residual: Float[Tensor, "N C T H W"] | None = None
    ) -> Float[Tensor, "N C T H W"]:
        """The kernel does the tail too."""
        return group_norm(x, self.weight, self.bias, self.num_groups, self.eps, residual, self.activation)

    def normalize(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N C T H W"]:
        """(x - mean) / sqrt(var + eps) * gamma + beta"""
        return group_norm(x, self.weight, self.bias, self.num_groups, self.eps)

    def extra_repr(self) -> str:
        return f"G={self.num_groups}, {super().extra_repr()}, eps={self.eps}"
