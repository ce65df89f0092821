"""Losses over K classes, for labels as indices and as the shares of mixed clips alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot

from videogn.number import is_number
from videogn.training.class_weights import class_weights as weights_of
from videogn.types import InputError

Labels = Int64[Tensor, " N"] | Float[Tensor, "N K"]


class FocalLoss(nn.Module):
    """The cross entropy, less of it the surer the network is of a class:

        loss = 1/N sum_n sum_k weight_k * y_nk * (1 - p_nk) ** gamma * -log p_nk        p_n = softmax(scores_n)

    y_n is 1 for the clip's class, or the shares of a mixed one; with label smoothing s it is (1 - s) y_n + s / K. gamma = 0 is
    the cross entropy.

    Args:
        gamma: 0 or more.
        label_smoothing: s, 0 to 1.
        class_weights: what `class_weights` of videogn.training.class_weights takes; `weigh` makes the weights of it. None: all 1.

    Attributes:
        weight: of each class; None before `weigh`, and where all are 1.

    Raises:
        InputError: a value that is none of these.

    Source: Lin et al. 2017, arXiv:1708.02002, equation 5, with a softmax in place of their sigmoids.
    """

    weight: Tensor | None

    def __init__(self, gamma: float | int = 2.0, label_smoothing: float | int = 0.0, class_weights: Any = None) -> None:
        super().__init__()
        if not is_number(gamma):
            raise InputError(f"{type(self).__name__}: gamma={gamma}; give a number from 0 up")
        if not is_number(label_smoothing, high=1):
            raise InputError(f"{type(self).__name__}: label_smoothing={label_smoothing}; give a number from 0 to 1")
        self.gamma = gamma
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", None)
        self._class_weights = class_weights

    def weigh(self, classes: Sequence[str], labels: Int64[np.ndarray, " V"]) -> None:
        """Make the weights, from the K class names and the class of every training video; raises InputError."""
        self.weight = weights_of(self._class_weights, classes, labels)

    def forward(self, scores: Float[Tensor, "N K"], labels: Labels) -> Float[Tensor, ""]:
        num_classes = scores.shape[1]
        logs = log_softmax(scores, 1)
        shares = one_hot(labels, num_classes) if labels.ndim == 1 else labels
        terms = -logs * (shares.to(logs.dtype) * (1 - self.label_smoothing) + self.label_smoothing / num_classes)
        if self.gamma:
            # Not below the smallest number: with a gamma below 1 the power's slope at 0 is infinite.
            terms = terms * (1 - logs.exp()).clamp(min=torch.finfo(logs.dtype).tiny) ** self.gamma
        if self.weight is not None:
            terms = terms * self.weight.to(terms)
        return terms.sum() / len(scores)


class CrossEntropy(FocalLoss):
    """torch.nn.CrossEntropyLoss, but for what class weights do:

        loss = 1/N sum_n sum_k weight_k * y_nk * -log p_nk

    torch's divides by the sum of the weights of the batch's labels where they are indices (and by N where they are shares). Of a
    batch of one clip the weight then falls out, and of small batches a part of it; and the mean over accumulated batches is not
    that of one large batch. Without weights it is torch's.

    Args:
        label_smoothing, class_weights: see FocalLoss.
    """

    def __init__(self, label_smoothing: float | int = 0.0, class_weights: Any = None) -> None:
        super().__init__(0.0, label_smoothing, class_weights)
