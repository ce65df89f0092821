"""What an artifact carries beside its graph, so that nothing else is needed to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from videogn import __version__
from videogn.types import InputError

KEY = "videogn"
# The parts of a run's configuration that decide what a video's score is.
PARTS = (
    "mean",
    "std",
    "clip_length",
    "frame_stride",
    "crop_size",
    "test_short_side",
    "batch_size",
    "decoder",
    "evaluation",
)


@dataclass(frozen=True)
class Bundle:
    """Labels, preprocessing, protocol, and the proof that the artifact computes what the network did.

    Attributes:
        classes: in the order of the outputs.
        config: the parts of the run's resolved configuration that decide a score; plain data, not checked.
        proof: see the exporter; empty before it.
    """

    classes: tuple[str, ...]
    config: dict[str, Any]
    proof: dict[str, Any]

    @classmethod
    def of(cls, config: Mapping[str, Any], classes: tuple[str, ...]) -> Bundle:
        return cls(classes, {part: config[part] for part in PARTS}, {})

    def dumps(self) -> str:
        """JSON, for the artifact's metadata."""
        return json.dumps({"version": __version__, "classes": self.classes, "config": self.config, "proof": self.proof})

    @classmethod
    def loads(cls, text: str | None, place: str) -> Bundle:
        """Raises InputError where the metadata is not ours."""
        try:
            content = json.loads(text or "")
            return cls(tuple(content["classes"]), content["config"], content["proof"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{place}: without videogn's labels and preprocessing; export it with `videogn export`") from None
