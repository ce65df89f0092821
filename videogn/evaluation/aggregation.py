"""How the scores of a video's views become one answer."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64

# Values in float64 at a time: thirty views of Kinetics' 20,000 test videos are 2 GB of them.
_PART = 2**22


def aggregate(
    logits: Float[np.ndarray, "V views K"], aggregation: str, num_views: Int64[np.ndarray, " V"] | None = None
) -> Float[np.ndarray, "V K"]:
    """The probabilities of each video, in float64: rows that sum to 1; no finite numbers where a view has none, or
    where there is no view.

    - softmax_mean: the mean of the views' softmax, as the Group Normalization paper and most others do.
    - logit_mean: the softmax of the views' mean logits, which is the geometric mean of their softmax, scaled to a sum of 1: a
      view that rules a class out weighs more.
    - max: the largest softmax of each class over the views, scaled to a sum of 1: one view that is sure suffices.

    Args:
        aggregation: one of AGGREGATIONS.
        num_views: how many of the views each video has; what lies behind them is not read. None: all.
    """
    counts = np.full(len(logits), logits.shape[1]) if num_views is None else num_views
    answers = np.full((len(logits), logits.shape[2]), np.nan)
    for count in np.unique(counts[counts > 0]).tolist():
        rows = np.flatnonzero(counts == count)
        for part in np.array_split(rows, -(-rows.size * count * logits.shape[2] // _PART)):
            with np.errstate(invalid="ignore"):  # inf - inf, of a network whose scores are no finite numbers
                answers[part] = _AGGREGATIONS[aggregation](logits[part, :count].astype(np.float64))
    return answers


def _softmax(logits: Float[np.ndarray, "*rows K"]) -> Float[np.ndarray, "*rows K"]:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _max(logits: Float[np.ndarray, "V views K"]) -> Float[np.ndarray, "V K"]:
    largest = _softmax(logits).max(1)
    return largest / largest.sum(1, keepdims=True)


_AGGREGATIONS = {
    "softmax_mean": lambda logits: _softmax(logits).mean(1),
    "logit_mean": lambda logits: _softmax(logits.mean(1)),
    "max": _max,
}
AGGREGATIONS = tuple(_AGGREGATIONS)
