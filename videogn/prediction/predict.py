"""Classify video files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from videogn.dataset.clips import read_views
from videogn.evaluation.aggregation import aggregate
from videogn.evaluation.protocol import Protocol
from videogn.transform.functional import to_input
from videogn.types import Decoder, VideoError


@dataclass(frozen=True)
class Prediction:
    """What a video shows, or why it could not be read.

    Attributes:
        path: as it was given.
        top: (label, probability), the most probable first; empty with an error.
        error: one line, or None.
    """

    path: str
    top: tuple[tuple[str, float], ...]
    error: str | None

    def as_dict(self) -> dict[str, Any]:
        top = [{"label": label, "probability": probability} for label, probability in self.top]
        return {"path": self.path, "top": top, "error": self.error}


@dataclass(frozen=True)
class VideoScorer:
    """A trained network with everything between a file and its label.

    Attributes:
        score: (N, 3, T, H, W) -> (N, K), before the softmax.
        classes: K names.
        decoder, protocol: as in the test at the end of training.
        mean, std: RGB, on the 0..255 scale.
        batch_size: views in one forward.
    """

    score: Callable[[Float[Tensor, "N 3 T H W"]], Float[Tensor, "N K"]]
    classes: Sequence[str]
    decoder: Decoder
    protocol: Protocol
    mean: Sequence[float]
    std: Sequence[float]
    batch_size: int

    def predict(self, paths: Iterable[str | Path], top: int = 5) -> Iterator[Prediction]:
        """One prediction a path, in order; a file that cannot be read has an error and stops nothing."""
        for path in paths:
            try:
                clips = read_views(path, self.decoder, [(self.protocol.sampler, self.protocol.transform)])[0]
            except VideoError as error:
                yield Prediction(str(path), (), error.reason)
                continue
            inputs = to_input(clips, torch.zeros(len(clips), dtype=torch.bool), self.mean, self.std)
            with torch.inference_mode():
                scores = torch.cat([self.score(part) for part in inputs.split(self.batch_size)])
            answer = aggregate(scores.float().cpu().numpy()[None], self.protocol.aggregation)[0]
            best = torch.from_numpy(answer).topk(min(top, len(self.classes)))
            labels = [str(self.classes[i]) for i in best.indices.tolist()]
            yield Prediction(str(path), tuple(zip(labels, map(float, best.values), strict=True)), None)
