"""What a score means: which clips and windows of a video were scored, and how they became one answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from videogn.evaluation.aggregation import AGGREGATIONS
from videogn.types import InputError, Sampler, ViewTransform


@dataclass(frozen=True)
class Protocol:
    """A way to score a video: score every view (clip x window), and make one answer of them.

    Attributes:
        sampler: chooses the clips of a video.
        transform: chooses the windows of every clip.
        aggregation: makes one answer of the views.

    Raises:
        InputError: there is no such aggregation, or sampler or transform is none.
    """

    sampler: Sampler
    transform: ViewTransform
    aggregation: str = "softmax_mean"

    def __post_init__(self) -> None:
        for name, kind in (("sampler", Sampler), ("transform", ViewTransform)):
            if not isinstance(value := getattr(self, name), kind):
                raise InputError(f"evaluation: {name}={value}: is none; give values of a file of conf/, as --help shows them")
        if self.aggregation not in AGGREGATIONS:
            raise InputError(f"evaluation: aggregation={self.aggregation}: use one of {', '.join(AGGREGATIONS)}")

    @property
    def num_views(self) -> int | None:
        """Of every video; None where it depends on the video's length."""
        return None if self.sampler.num_clips is None else self.sampler.num_clips * self.transform.crops

    def describe(self, decoder: str) -> dict[str, Any]:
        """The facts that decide a score, as they stand in result.json; crop_size None: the whole frame was scored;
        num_clips None: as many as each video's length asked for."""
        where_set = {name: getattr(self.sampler, name, None) for name in ("target_fps", "hop")}
        return {
            "clip_length": self.sampler.clip_length,
            "frame_stride": self.sampler.frame_stride,
            # Facts of some samplers alone.
            **{name: value for name, value in where_set.items() if value is not None},
            "clip_rule": self.sampler.rule,
            "short_video": self.sampler.short_video,
            "num_clips": self.sampler.num_clips,
            "crops": self.transform.crops,
            "crop_size": self.transform.crop_size,
            "short_side": self.transform.short_side,
            "aggregation": self.aggregation,
            "decoder": decoder,
        }


def protocol_hash(description: Mapping[str, Any]) -> str:
    """Two scores may be compared when these 12 hex digits agree."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:12]
