"""What an artifact carries beside its graph, so that nothing else is needed to use it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogn import __version__
from videogn.number import is_count
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
    """Labels, preprocessing, protocol, origin, and the proof that the artifact computes what the network did.

    Attributes:
        classes: in the order of the outputs.
        config: the parts of the run's resolved configuration that decide a score; plain data, not checked.
        input: what the artifact takes, in words and numbers that need no videogn to be read; see docs/export.md.
        protocol: the facts of the protocol that `predict` uses, as in result.json.
        licence: of the artifact; None where nobody said.
        run: the training: the hash of its configuration, its data, and the epoch, from 0, and step.
        proof: see videogn.export.proof; empty before it.
    """

    classes: tuple[str, ...]
    config: dict[str, Any]
    input: dict[str, Any]
    protocol: dict[str, Any]
    licence: str | None
    run: dict[str, Any]
    proof: dict[str, Any]

    @classmethod
    def of(
        cls,
        config: Mapping[str, Any],
        classes: tuple[str, ...],
        protocol: dict[str, Any],
        licence: str | None,
        run: dict[str, Any],
    ) -> Bundle:
        """Of a run; what it takes and the proof come with the artifact."""
        return cls(classes, {part: config[part] for part in PARTS}, {}, protocol, licence, run, {})

    def dumps(self) -> str:
        """JSON, for the artifact and for the file beside it."""
        return json.dumps({"version": __version__, **dataclasses.asdict(self)}, indent=1, ensure_ascii=False)

    @classmethod
    def loads(cls, text: str | bytes | None, place: str | Path) -> Bundle:
        """Raises InputError where the metadata is not ours."""
        try:
            content = json.loads(text or "")
            values: dict[str, Any] = {field.name: content[field.name] for field in dataclasses.fields(cls)}
            bundle = cls(**{**values, "classes": tuple(map(str, content["classes"]))})
            # Read by `predict` without another look.
            sizes = bundle.input["shape"]
            if not isinstance(bundle.input["is_uint8"], bool) or len(sizes) != 5:
                raise TypeError
            if not all(size is None or is_count(size, 1) for size in sizes):
                raise ValueError
            return bundle
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"{place}: without videogn's labels and preprocessing; export it with `videogn export`") from None
