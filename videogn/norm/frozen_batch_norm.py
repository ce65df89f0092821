"""Batch normalization whose statistics and parameters never change."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from videogn.norm.norm import Activation, Norm
from videogn.number import is_positive
from videogn.types import InputError


class FrozenBatchNorm(Norm):
    """A scale and a shift of each channel, from the statistics and parameters of a BatchNorm trained before:

        y = activation((x - running_mean) / sqrt(running_var + eps) * weight + bias + residual)

    What small-batch detectors do with a pretrained BatchNorm. Everything is a buffer: nothing is learnt, in training mode
    either. It is no torch BatchNorm, since torch's tools (update_bn, SyncBN conversion) would thaw it. State keys as
    torch.nn.BatchNorm3d, whose num_batches_tracked is accepted and left out. Without loaded weights it is the identity, up
    to eps.

    Args:
        channels: C.
        activation: None, "relu" or "silu".
        zero_init: must be False: a gamma of 0 that is never learnt would cut its branch off.
        eps: added to the variance, in units of x squared.

    Raises:
        InputError: zero_init.

    Source: as in He et al., Mask R-CNN, arXiv:1703.06870; Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    def __init__(
        self, channels: int, activation: Activation | None = None, zero_init: bool = False, *, eps: float = 1e-5
    ) -> None:
        if zero_init:
            raise InputError("FrozenBatchNorm: zero_init=True; its gamma is never learnt: set model.zero_init=false")
        if not is_positive(eps):
            raise InputError(f"FrozenBatchNorm: eps={eps}; give a number above 0, in units of x squared")
        super().__init__(channels, activation, zero_init)
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    running_mean: Any
    running_var: Any

    def normalize(self, x: Float[Tensor, "N C *S"]) -> Float[Tensor, "N C *S"]:
        """(x - running_mean) / sqrt(running_var + eps) * weight + bias, in the dtype of x"""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        broadcast = (1, -1) + (1,) * (x.ndim - 2)
        return torch.addcmul(shift.reshape(broadcast), x, scale.reshape(broadcast)).to(x.dtype)

    def reset_parameters(self) -> None:
        """The identity, up to eps."""
        super().reset_parameters()
        torch.nn.init.zeros_(self.running_mean)
        torch.nn.init.ones_(self.running_var)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any, **named: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *arguments, **named)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps}"
