"""The files that a prediction was asked for, beside its answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from videogn.prediction.annotate import write_annotated
from videogn.prediction.classifier import Classifier, Outcome, Wanted
from videogn.prediction.explain import write_explanation
from videogn.prediction.features import require_features
from videogn.prediction.output import (
    check_apart,
    check_file,
    check_folder,
    output_names,
    run_folder,
    write_features,
    write_timelines,
)
from videogn.prediction.timeline import Timeline
from videogn.types import InputError, VideoError

ANNOTATED_SUFFIXES = (".mp4", ".mkv", ".mov")


@dataclass(frozen=True)
class Places:
    """Where each kind of file goes; None: it was not asked for.

    Attributes:
        timeline: .json or .csv.
        features: .npz.
        annotate: a video, or a folder.
        explain: a folder.
    """

    timeline: Path | None = None
    features: Path | None = None
    annotate: Path | None = None
    explain: Path | None = None

    def wanted(self, hop_seconds: float | None, top: int) -> Wanted:
        """What these files need to know of each video."""
        is_timed = self.timeline is not None or self.annotate is not None
        return Wanted(features=self.features is not None, timeline=is_timed, hop_seconds=hop_seconds, top=top)


class ResultFiles:
    """Writes them: annotated videos and explanations as they come, the others at the end.

    Args:
        videos: all that will come.
        model: the run, checkpoint or artifact.

    Raises:
        InputError: a place that cannot be written, would replace a video or the model, or two that are one.
    """

    def __init__(self, places: Places, videos: Sequence[str], model: str) -> None:
        self._places = places
        names = output_names(videos)
        self._annotated = {} if places.annotate is None else self._videos(places.annotate, names)
        self._explained = {} if places.explain is None else {v: places.explain / name for v, name in names.items()}
        if places.timeline is not None:
            check_file("--timeline", places.timeline, (".json", ".csv"))
        if places.features is not None:
            check_file("--features", places.features, (".npz",))
        if places.explain is not None:
            check_folder("--explain", places.explain)
        outputs = [*dict.fromkeys(self._annotated.values())]
        for stem in dict.fromkeys(self._explained.values()):
            outputs += [stem.with_name(stem.name + suffix) for suffix in (".mp4", ".png")]
        outputs += [path for path in (places.timeline, places.features) if path is not None]
        # A run folder is read as a whole: its result, its scores, its checkpoints.
        run = run_folder(Path(model))
        check_apart(outputs, [*videos, model, *(run.rglob("*") if run is not None else ())])
        self._timelines: list[tuple[str, str | None, Timeline | None]] = []
        self._features: list[tuple[str, Float32[np.ndarray, " D"] | None]] = []

    def check_model(self, classifier: Classifier, layer: str | None) -> None:
        """Raises InputError where the model cannot give what is asked for."""
        if self._places.features is not None:
            require_features(classifier.scorer.network)
        if self._places.explain is not None:
            classifier.require_layer(layer)

    def add(self, classifier: Classifier, outcome: Outcome, layer: str | None) -> str | None:
        """Write or keep what is known of a video; why it could not be read, at first or for its annotation, or None."""
        if self._places.timeline is not None:
            self._timelines.append((outcome.path, outcome.error, outcome.timeline))
        if self._places.features is not None:
            self._features.append((outcome.path, outcome.features))
        if outcome.error is not None:
            return outcome.error
        # Named twice, a video is written once.
        explained, annotated = self._explained.pop(outcome.path, None), self._annotated.pop(outcome.path, None)
        if explained is not None:
            write_explanation(explained, classifier.explanation(outcome, layer), outcome.path)
        if annotated is not None:
            assert outcome.timeline is not None
            try:
                write_annotated(annotated, classifier.frames(outcome.path), outcome.timeline)
            except VideoError as error:
                return error.reason
        return None

    def finish(self) -> None:
        if self._places.timeline is not None:
            write_timelines(self._places.timeline, self._timelines)
        if self._places.features is not None and any(row is not None for _, row in self._features):
            write_features(self._places.features, [path for path, _ in self._features], [row for _, row in self._features])

    def _videos(self, place: Path, names: dict[str, Path]) -> dict[str, Path]:
        if place.is_dir() or not place.suffix:
            check_folder("--annotate", place)
            return {video: place / name.with_name(f"{name.name}.mp4") for video, name in names.items()}
        check_file("--annotate", place, ANNOTATED_SUFFIXES)
        if len({os.path.abspath(video) for video in names}) > 1:
            raise InputError(f"--annotate {place}: one file for {len(names)} videos; give a folder")
        return dict.fromkeys(names, place)
