"""Layer normalization of a clip: one group of all channels."""

from __future__ import annotations

from videogn.norm.group_norm import GroupNorm
from videogn.norm.norm import Activation


class LayerNorm(GroupNorm):
    """Normalizes each clip over all of (C, T, H, W), that is GroupNorm with G = 1:

        y = activation((x - mean) / sqrt(var + eps) * gamma + beta + residual)

    var is the biased variance; gamma and beta are one a channel, as in every norm of this package (torch.nn.LayerNorm would hold
    one a value of the clip). State keys: weight, bias.

    Args:
        channels: C.
        activation: None, "relu" or "silu".
        zero_init: gamma starts at 0.
        eps: added to the variance, in units of x squared.

    Source: Ba et al., Layer Normalization, arXiv:1607.06450, as Wu & He 2018 define it for convolutions.
    """

    def __init__(
        self, channels: int, activation: Activation | None = None, zero_init: bool = False, *, eps: float = 1e-5
    ) -> None:
        super().__init__(channels, activation, zero_init, num_groups=1, eps=eps)
