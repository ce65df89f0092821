"""What every normalization layer of this package is and answers."""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from videogn.number import is_positive
from videogn.types import InputError

Activation = Literal["relu", "silu"]


class Norm(nn.Module):
    """A normalization that ends in the residual addition and the activation:

        y = activation(normalize(x) + residual)

    x is (N, C, *S): clips, for which S is (T, H, W), and where the layer does not say otherwise images or sequences too. The
    tail belongs to the layer, so that a layer may fuse it. A subclass writes `normalize` and keeps shape, dtype and
    memory format. It may also derive from torch's own class, which then makes the parameters (and so the state keys)
    from `torch_arguments`, and by which torch's tools recognise it:

        class GroupNorm(Norm, nn.GroupNorm)

    Args:
        channels: C, the size of axis 1.
        activation: None, "relu" or "silu".
        zero_init: gamma starts at 0 and not at 1, so that a residual block starts as its shortcut.
        torch_arguments: go to the constructor of torch's class.

    Raises:
        InputError: an activation of another name, fewer than one channel, an eps that is no number above 0, or a momentum that is
            no share.
    """

    # Whether residual and activation are computed with the norm, and not after it.
    fuses_tail = False

    # torch's classes declare these as optional, but ours always have them.
    weight: Any
    bias: Any

    def __init__(
        self, channels: int, activation: Activation | None = None, zero_init: bool = False, **torch_arguments: Any
    ) -> None:
        name = type(self).__name__
        if channels < 1:
            raise InputError(f"{name}: channels={channels}; a norm needs at least 1")
        if activation not in (None, "relu", "silu"):
            raise InputError(f"{name}: activation={activation!r}; use None, 'relu' or 'silu'")
        if not is_positive(eps := torch_arguments.get("eps", 1.0)):
            raise InputError(f"{name}: eps={eps}; give a number above 0, in units of x squared")
        if (momentum := torch_arguments.get("momentum")) is not None and not is_positive(momentum, 1):
            raise InputError(f"{name}: momentum={momentum}; give a share above 0, up to 1, or null for the mean of all batches")
        # Before the constructors of torch's classes, which call reset_parameters.
        self.channels = channels
        self.activation: Activation | None = activation
        self.zero_init = zero_init
        super().__init__(**torch_arguments)

    def normalize(self, x: Float[Tensor, "N C *S"]) -> Float[Tensor, "N C *S"]:
        """x with its statistics taken out, times gamma, plus beta."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "N C *S"], residual: Float[Tensor, "N C *S"] | None = None) -> Float[Tensor, "N C *S"]:
        """activation(normalize(x) + residual)"""
        y = self.normalize(x)
        if residual is not None:
            y = y + residual
        if self.activation is None:
            return y
        return functional.relu(y) if self.activation == "relu" else functional.silu(y)

    def no_decay_parameters(self) -> list[nn.Parameter]:
        """Parameters that weight decay must leave alone: gamma and beta."""
        return list(self.parameters(recurse=False))

    def reset_parameters(self) -> None:
        """gamma = 1, or 0 with `zero_init`; beta = 0."""
        nn.init.constant_(self.weight, 0.0 if self.zero_init else 1.0)
        nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """C and what differs from the plain layer; a subclass puts its own numbers in front."""
        tail = f", activation={self.activation}" if self.activation else ""
        return f"C={self.channels}{tail}{', zero_init' if self.zero_init else ''}"
