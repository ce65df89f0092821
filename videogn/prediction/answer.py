"""What a video shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float


class Answer(NamedTuple):
    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a video shows, or why there is no answer.

    Attributes:
        path: as it was given.
        top: (label, probability), the most probable first; empty with an error.
        error: one line, or None.
    """

    path: str
    top: tuple[Answer, ...]
    error: str | None

    def as_dict(self) -> dict[str, Any]:
        return {"path": self.path, "top": [answer._asdict() for answer in self.top], "error": self.error}


def ranked(probabilities: Float[np.ndarray, " K"], classes: Sequence[str], top: int) -> tuple[Answer, ...]:
    """The `top` most probable classes; of equals, the one that comes first."""
    best = np.argsort(-probabilities, kind="stable")[:top]
    return tuple(Answer(str(classes[i]), float(probabilities[i])) for i in best.tolist())
