"""Batch normalization, the baseline."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from videogn.norm.norm import Activation, Norm
from videogn.number import is_count
from videogn.types import InputError


class BatchNorm(Norm, nn.BatchNorm3d):  # pyright: ignore[reportIncompatibleMethodOverride] - torch's x is `input`
    """Normalizes each channel over (N, T, H, W):

        y = activation((x - mean) / sqrt(var + eps) * gamma + beta + residual)

    While training, mean and var (biased) are those of the batch on this device, and running averages are kept, of the
    unbiased variance; in evaluation the averages are used. State keys as torch.nn.BatchNorm3d.

    Args:
        channels: C.
        activation: None, "relu" or "silu".
        zero_init: gamma starts at 0.
        eps: added to the variance, in units of x squared.
        momentum: share of the newest batch in the running averages; None keeps the plain mean of all batches.
        precise_batches: training batches, at most those of an epoch, over which mean and variance are taken anew before each
            validation, with the weights as they then are; 0 keeps the running averages. The layer only says so:
            videogn.training.precise_statistics does it.

    Raises:
        InputError: precise_batches is no count.

    Source: Ioffe & Szegedy, Batch Normalization, ICML 2015, arXiv:1502.03167.
    """

    def __init__(
        self,
        channels: int,
        activation: Activation | None = None,
        zero_init: bool = False,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        precise_batches: int = 0,
    ) -> None:
        if not is_count(precise_batches):
            raise InputError(f"BatchNorm: precise_batches={precise_batches}; give a number of training batches, 0 or more")
        self.precise_batches = precise_batches
        super().__init__(channels, activation, zero_init, num_features=channels, eps=eps, momentum=momentum)

    def normalize(self, x: Float[Tensor, "N C *S"]) -> Float[Tensor, "N C *S"]:
        """torch.nn.BatchNorm3d"""
        return nn.BatchNorm3d.forward(self, x)

    def reset_parameters(self) -> None:
        """gamma = 1, or 0 with `zero_init`; beta = 0; running mean 0, variance 1."""
        self.reset_running_stats()
        super().reset_parameters()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps}, momentum={self.momentum}"
