"""Collect the scores of every view."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.distributed
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from videogn.evaluation.aggregation import aggregate
from videogn.evaluation.protocol import Protocol
from videogn.types import Batch, DeadVideo


@dataclass(frozen=True)
class Scores:
    """The scores of all videos of a split, in the manifest's order.

    Attributes:
        logits: of every view, before the softmax; NaN for a dead video, and behind the last view of one with fewer than others.
        dead: the videos that could not be read.
        aggregation: how a video's views become one answer.
        num_views: how many views each video has, 0 for a dead one; None where all have as many.
    """

    logits: Float32[np.ndarray, "V views K"]
    dead: tuple[DeadVideo, ...]
    aggregation: str = "softmax_mean"
    num_views: Int64[np.ndarray, " V"] | None = None

    @property
    def num_classes(self) -> int:
        return self.logits.shape[2]

    def videos(self) -> Float[np.ndarray, "V K"]:
        """Probabilities, in float64; NaN for a dead video, and for one whose scores are no finite numbers."""
        return self._videos

    def alive(self) -> Bool[np.ndarray, " V"]:
        return np.logical_not(np.isnan(self._videos).any(1))

    @cached_property
    def _videos(self) -> Float[np.ndarray, "V K"]:
        found = aggregate(self.logits, self.aggregation, self.num_views)
        found[np.logical_not(np.isfinite(found).all(1))] = np.nan
        return found


class ViewCollector:
    """Takes batches of views as they are scored, in any order and on any rank."""

    def __init__(self, protocol: Protocol, num_classes: int) -> None:
        self._num_views = protocol.num_views
        self._aggregation = protocol.aggregation
        self._num_classes = num_classes
        self._views: dict[int, list[np.ndarray]] = defaultdict(list)
        self._dead: dict[int, DeadVideo] = {}

    def add(self, batch: Batch, logits: Float[Tensor, "N K"]) -> None:
        # float32 whatever the precision: the softmax of bf16 would have steps of 0.4%.
        for video, row in zip(batch.videos.tolist(), logits.float().cpu().numpy(), strict=True):
            self._views[video].append(row)
        self._dead.update({dead.video: dead for dead in batch.dead})

    def gather(self, num_videos: int) -> Scores:
        """The scores of all ranks together; every rank gets the same.

        Raises:
            RuntimeError: a video was neither scored whole nor found dead: a defect, never a silent gap.
        """
        views, dead = dict(self._views), dict(self._dead)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts: list[tuple[dict[int, list[np.ndarray]], dict[int, DeadVideo]] | None]
            parts = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, (views, dead))
            for part in parts:
                assert part is not None
                views.update(part[0])
                dead.update(part[1])
        counts = np.array([0 if video in dead else len(views.get(video, ())) for video in range(num_videos)])
        for video, count in enumerate(counts.tolist()):
            if video not in dead and count != (self._num_views or max(1, count)):
                raise RuntimeError(f"video {video}: {count} of {self._num_views or 'its'} views were scored")
        most = max(1, counts.max(initial=0)) if self._num_views is None else self._num_views
        scores = np.full((num_videos, most, self._num_classes), np.nan, np.float32)
        for video, count in enumerate(counts.tolist()):
            if count:
                scores[video, :count] = views[video]
        found = tuple(dead[video] for video in sorted(dead))
        return Scores(scores, found, self._aggregation, counts if self._num_views is None else None)
