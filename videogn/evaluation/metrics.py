"""From scores and labels to the figures of a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from videogn.evaluation.multi_view import Scores


def classification_metrics(scores: Scores, labels: Int64[np.ndarray, " V"], classes: Sequence[str]) -> dict[str, Any]:
    """top1, top5, mean_class, macro_f1, loss, calibration_error and per_class; all but the loss are fractions of 1.

    - mean_class: the mean over the classes of their top-1 accuracy, where a class without videos is left out.
    - macro_f1: the mean of F1 = 2 TP / (2 TP + FP + FN) over the classes that a video has or was given.
    - calibration_error: the sum over the 15 bins of `calibration` of its share of the videos times |top1 - confidence|.
    - per_class: num_videos, top1 (also called recall), precision and f1 of each.

    A dead video counts as wrong in every accuracy, and as an FN; the loss and the calibration are those of the videos that have
    scores. What has no meaning is None: the top1 of a class without videos, the precision of one that was never
    answered, top5 below six classes, where it would be 1 by definition. Of equal scores the class named first wins.

    Source of the calibration error: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599.
    """
    probabilities, alive = scores.videos(), scores.alive()
    rank = true_rank(scores, labels)
    matrix = confusion(probabilities, labels)
    right, answered = matrix.diagonal(), matrix.sum(0)
    videos = np.bincount(labels, minlength=len(classes))
    recall, precision = _ratio(right, videos), _ratio(right, answered)
    f1 = _ratio(2 * right, videos + answered)
    per_class = {
        name: {"num_videos": int(videos[index]), "top1": recall[index], "precision": precision[index], "f1": f1[index]}
        for index, name in enumerate(classes)
    }
    true = np.take_along_axis(probabilities, labels[:, None], 1)[:, 0]
    # A softmax can underflow to 0; the smallest normal number bounds the loss at 708.
    floor = np.finfo(np.float64).tiny
    loss = float(-np.log(np.maximum(true[alive], floor)).mean()) if alive.any() else None
    return {
        "top1": float((rank < 1).mean()),
        "top5": float((rank < 5).mean()) if len(classes) > 5 else None,
        "mean_class": _mean(recall),
        "macro_f1": _mean(f1),
        "loss": loss,
        "calibration_error": calibration_error(probabilities, labels),
        "per_class": per_class,
    }


def true_rank(scores: Scores, labels: Int64[np.ndarray, " V"]) -> Int64[np.ndarray, " V"]:
    """How many classes a video's scores put before the true one; K, the number of classes, for a dead video."""
    probabilities = scores.videos()
    num_classes = probabilities.shape[1]
    true = np.take_along_axis(probabilities, labels[:, None], 1)
    # Before it: a higher score, or the same score and a smaller index.
    earlier = np.arange(num_classes)[None] < labels[:, None]
    ahead = ((probabilities > true) | ((probabilities == true) & earlier)).sum(1)
    return np.where(scores.alive(), ahead, num_classes)


def hardest(scores: Scores, labels: Int64[np.ndarray, " V"], count: int) -> list[int]:
    """The `count` videos whose true class has the lowest scores, the lowest first; dead videos are left out."""
    true = np.take_along_axis(scores.videos(), labels[:, None], 1)[:, 0]
    order = np.argsort(true, kind="stable")  # NaN comes last
    return [int(video) for video in order[: min(count, int(scores.alive().sum()))]]


def confusion(probabilities: Float[np.ndarray, "V K"], labels: Int64[np.ndarray, " V"]) -> Int64[np.ndarray, "K K"]:
    """Videos by true class (row) and answered class (column); dead videos (NaN scores) have no answer and are left out."""
    matrix = np.zeros((probabilities.shape[1],) * 2, np.int64)
    alive = _alive(probabilities)
    np.add.at(matrix, (labels[alive], probabilities[alive].argmax(1)), 1)
    return matrix


def calibration(
    probabilities: Float[np.ndarray, "V K"], labels: Int64[np.ndarray, " V"], bins: int = 15
) -> list[tuple[int, float, float]]:
    """For each of `bins` equal parts of 0..1 that the probability of a video's answer fell into: how many videos, their mean
    probability, and their top-1 accuracy; dead videos are left out."""
    alive = _alive(probabilities)
    confidence = probabilities[alive].max(1, initial=0.0)
    right = probabilities[alive].argmax(1) == labels[alive]
    # (0, 1/bins], (1/bins, 2/bins] ...: a probability of exactly 1 belongs to the last.
    part = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return [
        (int((part == index).sum()), float(confidence[part == index].mean()), float(right[part == index].mean()))
        for index in np.unique(part)
    ]


def calibration_error(probabilities: Float[np.ndarray, "V K"], labels: Int64[np.ndarray, " V"]) -> float | None:
    """The expected calibration error; None where no video has scores."""
    parts = calibration(probabilities, labels)
    total = sum(count for count, _, _ in parts)
    return sum(count * abs(top1 - confidence) for count, confidence, top1 in parts) / total if total else None


def intervals(
    scores: Scores, labels: Int64[np.ndarray, " V"], num_resamples: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """Of top1, top5 and mean_class, the 95% percentile bootstrap interval over videos.

    A resample draws as many videos as there are, with replacement: the interval says how far the figure could be elsewhere for
    the choice of the test videos alone, not for another training. A class of which a resample has no video is left
    out of its mean. None where the figure itself is None.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    num_classes = scores.num_classes
    rank = true_rank(scores, labels)
    rng = np.random.default_rng(seed)
    drawn = np.empty((num_resamples, 3))
    for row in range(num_resamples):
        sample = rng.integers(len(labels), size=len(labels))
        of_sample, right = labels[sample], rank[sample] < 1
        videos = np.bincount(of_sample, minlength=num_classes)
        correct = np.bincount(of_sample, right, num_classes)
        drawn[row] = right.mean(), (rank[sample] < 5).mean(), (correct[videos > 0] / videos[videos > 0]).mean()
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    bounds = {name: (float(low[i]), float(high[i])) for i, name in enumerate(("top1", "top5", "mean_class"))}
    return {**bounds, "top5": bounds["top5"] if num_classes > 5 else None}


def _alive(probabilities: Float[np.ndarray, "V K"]) -> Bool[np.ndarray, " V"]:
    return np.logical_not(np.isnan(probabilities).any(1))


def _ratio(part: Int64[np.ndarray, " K"], whole: Int64[np.ndarray, " K"]) -> list[float | None]:
    return [float(p / w) if w else None for p, w in zip(part.tolist(), whole.tolist(), strict=True)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
