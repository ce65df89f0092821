"""No normalization."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from videogn.norm.norm import Activation, Norm
from videogn.types import InputError


class NoNorm(Norm):
    """The tail of a norm alone:

        y = activation(x + residual)

    No state. The convolutions then want a bias (conv.bias=true), which norms make superfluous.

    Args:
        channels: C.
        activation: None, "relu" or "silu".
        zero_init: must be False: there is no gamma.

    Raises:
        InputError: zero_init.
    """

    def __init__(self, channels: int, activation: Activation | None = None, zero_init: bool = False) -> None:
        if zero_init:
            raise InputError("NoNorm: zero_init=True; there is no gamma that could start at 0: set model.zero_init=false")
        super().__init__(channels, activation, zero_init)

    def normalize(self, x: Float[Tensor, "N C *S"]) -> Float[Tensor, "N C *S"]:
        """x"""
        return x

    def reset_parameters(self) -> None:
        """Nothing to reset."""
