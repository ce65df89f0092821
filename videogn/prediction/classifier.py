"""A trained network with everything between a video file and its answer."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor

from videogn.dataset.clips import PART_BYTES, read_views
from videogn.evaluation.aggregation import aggregate
from videogn.evaluation.grad_cam import grad_cam
from videogn.evaluation.protocol import Protocol
from videogn.number import is_count
from videogn.prediction.answer import Prediction, ranked
from videogn.prediction.explain import Explanation
from videogn.prediction.features import require_features
from videogn.prediction.read_ahead import DecodingThread, ReadAhead
from videogn.prediction.score import ViewScorer, is_out_of_memory
from videogn.prediction.timeline import Timeline
from videogn.prediction.windows import WindowGroup, WindowPlan, check_hop, seconds_and_duration, window_groups
from videogn.types import Decoder, InputError, OutOfMemory, Sampler, ShortRead, VideoError

File = str | os.PathLike[str]
Files = File | Iterable[File]


class Views(NamedTuple):
    """The views of a video under the protocol, clip by clip and window by window."""

    clips: UInt8[Tensor, "N T H W 3"]
    seconds: Float64[np.ndarray, "N T"]  # of each frame, from the first of the video


class FramePart(NamedTuple):
    """Some frames of a video that follow each other."""

    fps: float
    seconds: Float64[np.ndarray, " T"]
    frames: UInt8[np.ndarray, "T H W 3"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """All that was asked for of one video.

    Attributes:
        path: as it was given.
        error: why there is no answer, one line; then nothing else is there.
        probabilities: of the K classes, under the protocol.
        features: the mean over the views of what the last linear layer reads.
        timeline: of the whole video.
        views, scores: those of the protocol; scores are before the softmax.
    """

    path: str
    error: str | None = None
    probabilities: Float64[np.ndarray, " K"] | None = None
    features: Float32[np.ndarray, " D"] | None = None
    timeline: Timeline | None = None
    views: Views | None = None
    scores: Float32[np.ndarray, "N K"] | None = None


@dataclass(frozen=True)
class Wanted:
    """What is asked for of every video.

    Attributes:
        answer: by the protocol.
        features: beside it.
        timeline: of the whole video, with the `top` classes of each window and `hop_seconds` from one to the next.
    """

    answer: bool = True
    features: bool = False
    timeline: bool = False
    hop_seconds: float | None = None
    top: int = 5


class Classifier:
    """Classifies video files; `videogn.load` makes one.

    Files are decoded in a thread, the next while the one before is scored, by `decoder`, which is for that thread alone.

    Attributes:
        classes: K names, in the order of the scores.
        protocol: which clips and windows of a video are scored, and how they become one answer: the first of the run's tests.
        decoder: opens the files.
        scorer: the network on its device.
    """

    def __init__(self, scorer: ViewScorer, classes: Sequence[str], decoder: Decoder, protocol: Protocol) -> None:
        self.scorer = scorer
        self.classes = tuple(map(str, classes))
        self.decoder = decoder
        self.protocol = protocol
        self._thread = DecodingThread()

    def predict(self, files: Files, top: int = 5) -> Iterator[Prediction]:
        """One prediction a file, in order, as each is known.

        A file that cannot be read has an error and stops nothing. A file is taken from `files` before the answer to the one
        before is given, so that it is decoded meanwhile.

        Args:
            files: paths, or one path.
            top: labels a file.

        Raises:
            InputError: top is below 1.
            OutOfMemory: the device cannot hold one view.
        """
        check_top(top)
        return (self.prediction(outcome, top) for outcome in self.outcomes(files))

    def timeline(self, file: File, hop_seconds: float | None = None, top: int = 5) -> Timeline:
        """What a video shows when, by windows that slide over all of it; docs/predict.md has the rule.

        Args:
            hop_seconds: from one window to the next; None: a window begins where the one before would go on.
            top: labels a window.

        Raises:
            VideoError: the file cannot be read.
            InputError: hop_seconds is below 0.001, or top below 1.
        """
        check_top(top)
        check_hop(hop_seconds)
        outcome = self._only(file, Wanted(answer=False, timeline=True, hop_seconds=hop_seconds, top=top))
        assert outcome.timeline is not None
        return outcome.timeline

    def features(self, files: Files) -> Float32[np.ndarray, "V D"]:
        """What the network's last linear layer reads, the mean over the views of each file; NaN for a file that cannot be read.

        Raises:
            InputError: an .onnx has none, nor has a network without `features`.
            VideoError: none of the files can be read, the first.
        """
        require_features(self.scorer.network)
        outcomes = [(outcome.path, outcome.error, outcome.features) for outcome in self.outcomes(files, Wanted(features=True))]
        found = [row for _, _, row in outcomes if row is not None]
        if outcomes and not found:
            raise VideoError(outcomes[0][0], outcomes[0][1] or "")
        if not found:
            return np.zeros((0, 0), np.float32)
        return np.stack([np.full_like(found[0], np.nan) if row is None else row for _, _, row in outcomes])

    def explain(self, file: File, layer: str | None = None) -> Explanation:
        """Where and when the answered class was seen, by Grad-CAM, in the view that is surest of it.

        Args:
            layer: of the network, as `videogn inspect` prints it; None: the last whose output has several positions.

        Raises:
            VideoError: the file cannot be read.
            InputError: no such layer, or one without positions; an .onnx has none.
        """
        self.require_layer(layer)
        return self.explanation(self._only(file, Wanted()), layer)

    def outcomes(
        self, files: Files, wanted: Wanted = Wanted(), watch: Callable[[float], None] | None = None
    ) -> Iterator[Outcome]:
        """All that is wanted of each file, in order; each is decoded once for the protocol and once for its timeline.

        Args:
            watch: is told, as windows are scored, which share of the current video is done.
        """
        paths = iter([files] if isinstance(files, str | os.PathLike) else files)
        begun = deque(self._begin(paths, wanted))
        try:
            while begun:
                begun.extend(self._begin(paths, wanted))
                path, steps = begun[0]
                yield self._outcome(path, steps, wanted, watch or (lambda share: None))
                begun.popleft()
                steps.close()
        finally:
            for _, steps in begun:
                steps.close()

    def prediction(self, outcome: Outcome, top: int) -> Prediction:
        """The short of it."""
        if outcome.probabilities is None:
            return Prediction(outcome.path, (), outcome.error)
        return Prediction(outcome.path, ranked(outcome.probabilities, self.classes, top), None)

    def explanation(self, outcome: Outcome, layer: str | None = None) -> Explanation:
        """As `explain`, of what has been decoded and scored."""
        assert outcome.views is not None
        assert outcome.scores is not None
        assert outcome.probabilities is not None
        label = int(outcome.probabilities.argmax())
        view = surest_view(outcome.scores, label)
        return self._explained(outcome.views, view, label, float(outcome.probabilities[label]), layer)

    def explain_view(self, file: File, view: int, label: int, probability: float) -> Explanation:
        """As `explain`, of a view and a class that are known: nothing is scored but that view.

        Args:
            view: its number under the protocol.
            label: number of the class.
            probability: of the class, for the explanation to carry.
        """
        steps = _read(os.fspath(file), _steps(os.fspath(file), self.decoder, self.protocol, Wanted(), 1))
        with closing(ReadAhead(self._thread, steps)) as found:
            views = next(found)
        return self._explained(views, view, label, probability, None)

    def _explained(self, views: Views, view: int, label: int, probability: float, layer: str | None) -> Explanation:
        network = self.scorer.network
        assert network is not None
        clip = views.clips[view]
        try:
            heat = grad_cam(network, self.scorer.inputs(clip[None]), torch.tensor([label], device=self.scorer.device), layer)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(f"Grad-CAM of one view on {self.scorer.device}: {error}; use --device cpu") from None
        return Explanation(clip.numpy(), heat[0].float().cpu().numpy(), self.classes[label], probability, views.seconds[view])

    def frames(self, file: File) -> Iterator[FramePart]:
        """All frames in order, decoded ahead, as many at a time as a decoder should hold; raises VideoError."""
        with closing(ReadAhead(self._thread, _read(os.fspath(file), _all_frames(os.fspath(file), self.decoder)))) as parts:
            yield from parts

    def require_layer(self, layer: str | None) -> None:
        """Raises InputError where there is no such layer, or no network to have it."""
        network = self.scorer.network
        if network is None:
            raise InputError("explain: an exported file has no layers; give the run or the .ckpt that it was exported from")
        if layer is not None and layer not in dict(network.named_modules()):
            raise InputError(f"layer={layer}: no such layer of {type(network).__name__}; `videogn inspect` prints their names")

    def _only(self, file: File, wanted: Wanted) -> Outcome:
        outcome = next(self.outcomes([file], wanted))
        if outcome.error is not None:
            raise VideoError(outcome.path, outcome.error)
        return outcome

    def _begin(self, paths: Iterator[File], wanted: Wanted) -> list[tuple[str, ReadAhead[Views | WindowGroup]]]:
        """The next file, whose decoding begins; none at the end."""
        group_size = max(1, self.scorer.batch_size // self.protocol.transform.crops)
        return [
            (path, ReadAhead(self._thread, _read(path, _steps(path, self.decoder, self.protocol, wanted, group_size))))
            for path in (os.fspath(file) for file in islice(paths, 1))
        ]

    def _outcome(
        self, path: str, steps: Iterator[Views | WindowGroup], wanted: Wanted, watch: Callable[[float], None]
    ) -> Outcome:
        known: dict[str, Any] = {}
        plan: WindowPlan | None = None
        windows: list[np.ndarray] = []
        try:
            for step in steps:
                if isinstance(step, Views):
                    known |= self._answer(path, step, wanted)
                    continue
                plan = step.plan
                scores, _ = self.scorer(step.clips)
                scores = scores.reshape(-1, self.protocol.transform.crops, scores.shape[1])
                windows[step.first :] = self._aggregated(path, scores).astype(np.float32)
                watch(len(windows) / len(plan.starts))
        except VideoError as error:
            return Outcome(path, error.reason)
        if plan is not None:
            facts = (plan.starts, plan.ends, np.stack(windows), plan.duration_seconds)
            known["timeline"] = Timeline.of(*facts, self.classes, wanted.top)
        return Outcome(path, **known)

    def _answer(self, path: str, views: Views, wanted: Wanted) -> dict[str, Any]:
        scores, features = self.scorer(views.clips, wanted.features)
        known = {"probabilities": self._aggregated(path, scores[None])[0], "views": views, "scores": scores}
        return known if features is None else {**known, "features": features.mean(0, dtype=np.float64).astype(np.float32)}

    def _aggregated(self, path: str, scores: Float32[np.ndarray, "V views K"]) -> Float64[np.ndarray, "V K"]:
        if scores.shape[-1] != len(self.classes):
            raise InputError(f"the model gives {scores.shape[-1]} scores, and it has {len(self.classes)} classes; it is damaged")
        answers = aggregate(scores, self.protocol.aggregation)
        if not np.isfinite(answers).all():
            raise VideoError(path, "the network gives scores that are no finite numbers")
        return answers


def surest_view(scores: Float32[np.ndarray, "N K"], label: int) -> int:
    """The view whose softmax gives the class most."""
    return int(torch.from_numpy(scores).double().softmax(1)[:, label].argmax())


def check_top(top: int) -> None:
    if not is_count(top, 1):
        raise InputError(f"top: {top}: give a whole number of labels, at least 1")


class _Remembering:
    """A sampler that remembers when the frames are shown that it chose last."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.rule, self.short_video = sampler.rule, sampler.short_video
        self.num_clips, self.clip_length, self.frame_stride = sampler.num_clips, sampler.clip_length, sampler.frame_stride
        self.seconds: Float64[np.ndarray, "C T"] = np.zeros((0, 0))

    def __call__(self, timestamps: Float64[np.ndarray, " F"], rng: np.random.Generator) -> Int64[np.ndarray, "C T"]:
        indices = self._sampler(timestamps, rng)
        self.seconds = timestamps[indices] - timestamps[0]
        return indices


def _steps(path: str, decoder: Decoder, protocol: Protocol, wanted: Wanted, group_size: int) -> Iterator[Views | WindowGroup]:
    if wanted.answer:
        sampler = _Remembering(protocol.sampler)
        clips = read_views(path, decoder, [(sampler, protocol.transform)])[0]
        yield Views(clips, np.repeat(sampler.seconds, protocol.transform.crops, 0))
    if wanted.timeline:
        yield from window_groups(path, decoder, protocol, wanted.hop_seconds, group_size)


def _all_frames(path: str, decoder: Decoder) -> Iterator[FramePart]:
    with closing(decoder.open(path)) as video:
        step = max(1, PART_BYTES // (video.height * video.width * 3))
        start, failed = 0, -1
        while start < video.num_frames:
            indices = range(start, min(start + step, video.num_frames))
            try:
                frames = video.frames(indices)
            except ShortRead:  # it has recounted; the frames before this part are still the same
                if failed == start:
                    raise
                failed = start
                continue
            seconds, duration = seconds_and_duration(video.timestamps, video.fps)
            rate = video.num_frames / duration
            # The header's, which is exact, unless it is another: Matroska's milliseconds make 30 frames a second 30.003.
            fps = video.fps if abs(video.fps / rate - 1) < 0.02 else rate
            yield FramePart(fps, seconds[start : start + len(frames)], frames)
            start += len(frames)


def _read(path: str, steps: Iterator[Any]) -> Iterator[Any]:
    """The steps; what the system says of a file is a VideoError too."""
    try:
        yield from steps
    except OSError as error:
        raise VideoError(path, f"cannot be read: {error.strerror or error}") from error
