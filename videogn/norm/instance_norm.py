"""Instance normalization of a clip: a group for every channel."""

from __future__ import annotations

from videogn.norm.group_norm import GroupNorm
from videogn.norm.norm import Activation


class InstanceNorm(GroupNorm):
    """Normalizes each channel of each clip over (T, H, W), that is GroupNorm with G = C:

        y = activation((x - mean) / sqrt(var + eps) * gamma + beta + residual)

    var is the biased variance; no running statistics. A channel of one value (T * H * W = 1) has the variance 0 and becomes beta.
    State keys as torch.nn.InstanceNorm3d with affine=True: weight, bias.

    Args:
        channels: C.
        activation: None, "relu" or "silu".
        zero_init: gamma starts at 0.
        eps: added to the variance, in units of x squared.

    Source: Ulyanov et al., Instance Normalization, arXiv:1607.08022.
    """

    def __init__(
        self, channels: int, activation: Activation | None = None, zero_init: bool = False, *, eps: float = 1e-5
    ) -> None:
        super().__init__(channels, activation, zero_init, num_groups=max(channels, 1), eps=eps)  # 0 channels: Norm refuses
