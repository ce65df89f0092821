"""From scores and labels to the figures of a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from videogn.evaluation.multi_view import Scores


def classification_metrics(scores: Scores, labels: Int64[np.ndarray, " V"], classes: Sequence[str]) -> dict[str, Any]:
    """top1, top5, loss and per_class, fractions of 1.

    A dead video counts as wrong in every accuracy; the loss is the mean over the videos that have scores. A class without videos
    has no accuracy (None), nor has top5 below six classes, where it would be 1 by definition. Of equal scores the class
    named first wins.
    """
    probabilities, alive = scores.videos(), scores.alive()
    true = np.take_along_axis(probabilities, labels[:, None], 1)
    # Classes ahead of the true one: a higher score, or the same score and a smaller index.
    earlier = np.arange(len(classes))[None] < labels[:, None]
    ahead = ((probabilities > true) | ((probabilities == true) & earlier)).sum(1)
    rank = np.where(alive, ahead, len(classes))
    top1 = rank < 1
    per_class = {
        name: {
            "num_videos": int((labels == index).sum()),
            "top1": float(top1[labels == index].mean()) if (labels == index).any() else None,
        }
        for index, name in enumerate(classes)
    }
    # float32 softmax can underflow to 0; its smallest normal number bounds the loss at 87.
    floor = np.finfo(np.float32).tiny
    loss = float(-np.log(np.maximum(true[alive, 0], floor)).mean()) if alive.any() else None
    return {
        "top1": float(top1.mean()),
        "top5": float((rank < 5).mean()) if len(classes) > 5 else None,
        "loss": loss,
        "per_class": per_class,
    }
