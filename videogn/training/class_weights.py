"""How much the clips of each class count in the loss."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from videogn.number import is_number
from videogn.types import InputError


def class_weights(chosen: Any, classes: Sequence[str], labels: Int64[np.ndarray, " V"]) -> Float32[Tensor, " K"] | None:
    """The weight of each class; None where nothing is chosen.

        balanced: weight_k = num_videos / (num_classes_that_have_some * num_videos_of_k), so that every class counts as much, and
        the mean over the videos is 1; a class without a video has 1
        of four videos a a a b: 2/3 for a, 2 for b

    Args:
        chosen: null, `balanced`, a weight for every class in their order, or {class: weight}, the others 1.
        classes: the K names.
        labels: the class of every training video.

    Raises:
        InputError: `chosen` is none of these.
    """
    if chosen is None:
        return None
    if chosen == "balanced":
        counts = np.bincount(labels, minlength=len(classes))
        weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return torch.tensor(np.where(counts > 0, weights, 1.0), dtype=torch.float32)
    if isinstance(chosen, Mapping):
        if unknown := [str(name) for name in chosen if str(name) not in classes]:
            near = difflib.get_close_matches(unknown[0], classes, n=3, cutoff=0.5)
            nearest = f"; nearest: {', '.join(near)}" if near else ""
            raise InputError(f"loss.class_weights: {unknown[0]!r} is not one of the {len(classes)} classes{nearest}")
        by_name = {str(name): weight for name, weight in chosen.items()}
        values: list[Any] = [by_name.get(name, 1.0) for name in classes]
    elif isinstance(chosen, Sequence) and not isinstance(chosen, str):
        values = list(chosen)
    else:
        raise InputError(f"loss.class_weights={chosen}: give balanced, a list of numbers, {{CLASS: NUMBER}}, or null")
    if len(values) != len(classes):
        raise InputError(f"loss.class_weights: {len(values)} numbers for {len(classes)} classes; give one for each, in order")
    if not all(is_number(value) for value in values) or not any(values):
        raise InputError(f"loss.class_weights={chosen}: give numbers from 0 up, not all of them 0")
    return torch.tensor(values, dtype=torch.float32)


def describe(weights: Float32[Tensor, " K"], classes: Sequence[str]) -> str:
    """In a line, the least and the largest."""
    ends = ", ".join(f"{float(weights[row]):.3g} ({classes[row]})" for row in (int(weights.argmin()), int(weights.argmax())))
    return f"class weights, least and largest: {ends}"
