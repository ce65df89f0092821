"""Training: mixup and cutmix, two clips and their labels in one."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from videogn.number import is_number
from videogn.types import InputError

# A fifth word of entropy: numpy pads a shorter key with zeros, and (seed, step, rank) would be the clip (seed, epoch, video, 0).
_MIXING = 1


class Mixing:
    """Mixes each clip of a batch with the one before it, the first with the last:

        mixup:   x_n = share * x_n + (1 - share) * x_(n-1)            share ~ Beta(mixup_alpha, mixup_alpha)
        cutmix:  a box of (1 - share) of the frame is x_(n-1)'s, the same in all frames

    and the labels, y_n = share * onehot(y_n) + (1 - share) * onehot(y_(n-1)). In cutmix the box is centred anywhere and cut at
    the frame's edges; the labels take its share after that. Share, box and which of the two are one draw for a batch.
    Zhang et al. 2018, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899.

    Args:
        mixup_alpha, cutmix_alpha: above 0; 0 leaves the one out, and both 0 (the default) leave batches as they are.
        probability: that a batch is mixed.
        switch_probability: that it is cutmix, where both are wanted.
    """

    def __init__(
        self,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        probability: float = 1.0,
        switch_probability: float = 0.5,
    ) -> None:
        for name, value in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if not is_number(value):
                raise InputError(f"mixing: {name}={value}; give a number above 0, or 0 to leave it out")
        for name, value in (("probability", probability), ("switch_probability", switch_probability)):
            if not is_number(value, high=1):
                raise InputError(f"mixing: {name}={value} is no probability; give 0 to 1")
        self._mixup_alpha = mixup_alpha
        self._cutmix_alpha = cutmix_alpha
        self._probability = probability
        self._switch_probability = switch_probability

    @property
    def is_on(self) -> bool:
        return self._probability > 0 and (self._mixup_alpha > 0 or self._cutmix_alpha > 0)

    def __call__(
        self, inputs: Float[Tensor, "N C T H W"], labels: Int64[Tensor, " N"], num_classes: int, seed: int, step: int, rank: int
    ) -> tuple[Float[Tensor, "N C T H W"], Float32[Tensor, "N K"]]:
        """Inputs and label shares after mixing; a batch of one clip stays as it is.

        Args:
            inputs: normalised; not written to.
            num_classes: K.
            seed, step, rank: what the draw depends on, and nothing else.
        """
        rng = np.random.default_rng([seed, step, rank, 0, _MIXING])
        mixed, cut = rng.random(2)
        shares = one_hot(labels, num_classes).float()
        if not self.is_on or len(labels) < 2 or mixed >= self._probability:
            return inputs, shares
        by_box = self._cutmix_alpha > 0 and (self._mixup_alpha == 0 or cut < self._switch_probability)
        alpha = self._cutmix_alpha if by_box else self._mixup_alpha
        share = float(rng.beta(alpha, alpha))
        if by_box:
            inputs, share = paste(inputs, share, int(rng.integers(inputs.shape[-2])), int(rng.integers(inputs.shape[-1])))
        else:
            inputs = inputs * share + inputs.roll(1, 0) * (1 - share)
        return inputs, shares * share + shares.roll(1, 0) * (1 - share)


def paste(inputs: Float[Tensor, "N C T H W"], share: float, row: int, column: int) -> tuple[Float[Tensor, "N C T H W"], float]:
    """Cutmix by a box of 1 - `share` of the frame around (row, column); and the share that is left of each clip's own pixels."""
    height, width = inputs.shape[-2:]
    half = 0.5 * math.sqrt(1 - share)
    half_height, half_width = int(half * height), int(half * width)
    top, bottom = max(row - half_height, 0), min(row + half_height, height)
    left, right = max(column - half_width, 0), min(column + half_width, width)
    result = torch.clone(inputs)
    result[..., top:bottom, left:right] = inputs.roll(1, 0)[..., top:bottom, left:right]
    return result, 1 - (bottom - top) * (right - left) / (height * width)
