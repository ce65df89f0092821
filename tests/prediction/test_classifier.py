"""The classifier against its parts: answers, timelines, features, explanations of videos whose colours are known."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from videogn.decoder.auto import AutoDecoder
from videogn.decoder.pyav import PyAVDecoder
from videogn.evaluation.aggregation import aggregate
from videogn.evaluation.grad_cam import grad_cam
from videogn.prediction.classifier import Classifier, Wanted
from videogn.sampler.uniform_clips import UniformClips
from videogn.transform.views import Crops, WholeFrame
from videogn.types import InputError, ShortRead, VideoError

from .conftest import ColourNetwork, CountingDecoder, colour_classifier


def scores_by_hand(classifier: Classifier, frames: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Of every clip and window: cut by hand, normalised by hand, one at a time."""
    height, width = frames.shape[1:3]
    rows = []
    for clip in indices.tolist():
        for window in classifier.protocol.transform.windows(height, width):
            cut = classifier.protocol.transform.cut(frames[clip], window).double().numpy()
            mean = ((cut - 128) / 64).mean((0, 1, 2))
            rows.append(2 * mean)
    return np.array(rows)


def all_frames(path: str) -> tuple[np.ndarray, np.ndarray]:
    video = PyAVDecoder().open(path)
    return np.concatenate([video.frames([i]) for i in range(video.num_frames)]), video.timestamps


@pytest.mark.parametrize("aggregation", ["softmax_mean", "logit_mean", "max"])
@pytest.mark.parametrize("crops", [Crops(16, 20, 1), Crops(16, 20, 3), WholeFrame(20)], ids=["crop", "three", "whole"])
def test_answers_are_the_mean_of_the_views(crops: Crops, aggregation: str, write: Callable[..., str]) -> None:
    sampler = UniformClips(4, 2, 5)
    classifier = colour_classifier(sampler, crops, aggregation=aggregation)
    path = write("v.mp4", ("red", 20), ("blue", 13))
    (prediction,) = classifier.predict([path], top=3)
    frames, timestamps = all_frames(path)
    scores = scores_by_hand(classifier, frames, sampler(timestamps, np.random.default_rng(0)))
    expected = aggregate(scores[None], aggregation)[0]
    # fp32 means of pixels below 2, of 64 to 4000 values.
    for label, probability in prediction.top:
        assert probability == pytest.approx(expected[classifier.classes.index(label)], abs=1e-5)
    assert [p for _, p in prediction.top] == sorted(expected, reverse=True) or np.allclose(
        [p for _, p in prediction.top], sorted(expected, reverse=True), atol=1e-5
    )
    assert prediction.top[0].label == "red"


@pytest.mark.parametrize("hop_seconds", [None, 0.25, 1.7])
def test_the_timeline_is_that_of_a_full_decode(hop_seconds: float | None, write_variable: Callable[..., str]) -> None:
    """A variable frame rate; windows cut by hand from all frames, their means taken instant by instant."""
    rng = np.random.default_rng(1)
    milliseconds = np.cumsum(rng.integers(30, 170, 60)).tolist()
    path = write_variable("v.mkv", milliseconds, ("red", 22), ("green", 7), ("blue", 31))
    classifier = colour_classifier(crops=Crops(16, 20, 3))
    timeline = classifier.timeline(path, hop_seconds, top=2)
    frames, timestamps = all_frames(path)
    seconds = timestamps - timestamps[0]
    duration = seconds[-1] + np.median(np.diff(seconds))
    assert timeline.duration_seconds == pytest.approx(duration)
    starts: list[int] = []
    if hop_seconds is None:
        starts = list(range(0, 60 - 7, 8))
    else:
        instant = 0.0
        while instant < seconds[60 - 7]:
            starts.append(max(i for i in range(60) if seconds[i] <= instant + 1e-3))
            instant += hop_seconds
    starts = [*dict.fromkeys(s for s in starts if s < 53), 53]
    begin = seconds[starts]
    end = np.array([seconds[s + 8] if s + 8 < 60 else duration for s in starts])
    assert [w.start_seconds for w in timeline.windows] == pytest.approx(begin)
    assert [w.end_seconds for w in timeline.windows] == pytest.approx(end)
    scores = scores_by_hand(classifier, frames, np.array(starts)[:, None] + np.arange(4) * 2)
    expected = aggregate(scores.reshape(len(starts), 3, 3), "softmax_mean")
    np.testing.assert_allclose(timeline.probabilities, expected, atol=1e-5)
    assert all(len(w.top) == 2 for w in timeline.windows)
    for instant in np.linspace(0.0011, duration - 0.0011, 400):
        covers = (begin <= instant) & (instant < end)
        if not covers.any():
            before, behind = end[end <= instant].max(), begin[begin > instant].min()
            covers = end == before if instant < (before + behind) / 2 else begin == behind
        (segment,) = (s for s in timeline.segments if s.start_seconds <= instant < s.end_seconds)
        assert segment.label == classifier.classes[expected[covers].mean(0).argmax()]
    labels = [s.label for s in timeline.segments]
    assert (labels[0], labels[-1]) == ("red", "blue")


def test_features_are_the_mean_over_the_views(write: Callable[..., str], tmp_path: Path) -> None:
    classifier = colour_classifier(crops=Crops(16, 20, 3))
    path = write("v.mp4", ("red", 20), ("green", 9))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    features = classifier.features([path, str(tmp_path / "bad.mp4"), path])
    (outcome,) = classifier.outcomes(path, Wanted(features=True))
    assert outcome.views is not None
    network = classifier.scorer.network
    assert isinstance(network, ColourNetwork)
    with torch.inference_mode():
        by_hand = network.features(classifier.scorer.inputs(outcome.views.clips))
    assert len(by_hand) == 9
    # Views are summed in batches of 4 and in float64; fp32 values below 2.
    np.testing.assert_allclose(features[0], by_hand.double().mean(0), atol=1e-6)
    assert features.dtype == np.float32
    assert np.isnan(features[1]).all()
    assert np.array_equal(features[0], features[2])
    # Of an average and a linear layer, the layer on the mean features gives the mean scores.
    assert outcome.scores is not None
    with torch.inference_mode():
        np.testing.assert_allclose(network.head(torch.from_numpy(features[0])), outcome.scores.mean(0), atol=1e-5)
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        classifier.features([tmp_path / "bad.mp4"])
    assert classifier.features([]).shape == (0, 0)


def test_the_explanation_is_of_the_view_that_is_surest(write: Callable[..., str]) -> None:
    """Clips of frames 0 2 4 6, 10 12 .. and 20 22 .. of a video that is blue in the middle of its length."""
    classifier = colour_classifier()
    path = write("v.mp4", ("red", 2), ("blue", 27), ("red", 1))
    explanation = classifier.explain(path)
    assert explanation.label == "blue"
    assert explanation.seconds.tolist() == pytest.approx([1.0, 1.2, 1.4, 1.6])
    frames, _ = all_frames(path)
    window = classifier.protocol.transform.windows(24, 32)[0]
    clip = classifier.protocol.transform.cut(frames[[10, 12, 14, 16]], window)
    assert np.array_equal(explanation.clip, clip.numpy())
    network = classifier.scorer.network
    assert network is not None
    heat = grad_cam(network, classifier.scorer.inputs(clip[None]), torch.tensor([2]))[0]
    np.testing.assert_allclose(explanation.heat, heat, atol=1e-6)
    assert explanation.heat.shape == explanation.clip.shape[:3]
    (prediction,) = classifier.predict(path)
    assert explanation.probability == prediction.top[0].probability
    with pytest.raises(InputError, match="layer=tronk: no such layer of ColourNetwork"):
        classifier.explain(path, "tronk")
    assert len(classifier.decoder.readings) == 2  # type: ignore[attr-defined] - the wrong layer was refused before


def test_files_are_answered_as_given(write: Callable[..., str], tmp_path: Path) -> None:
    classifier = colour_classifier()
    red, blue = write("red.mp4", ("red", 9)), write("blue.mp4", ("blue", 9))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "folder.mp4").mkdir()
    names = [red, str(tmp_path / "bad.mp4"), blue, red, str(tmp_path / "gone.mp4"), "x" * 300, str(tmp_path / "folder.mp4")]
    predictions = list(classifier.predict(names, top=1))
    assert [p.path for p in predictions] == names
    assert [p.top[0].label if p.top else None for p in predictions] == ["red", None, "blue", "red", None, None, None]
    assert [p.error is None for p in predictions] == [True, False, True, True, False, False, False]
    assert "no such file" in (predictions[4].error or "")
    # One path alone is a file, not its letters.
    assert [p.path for p in classifier.predict(red)] == [red]
    assert [p.path for p in classifier.predict(Path(red))] == [red]
    assert list(classifier.predict([])) == []
    with pytest.raises(InputError, match="top: 0: give a whole number"):
        classifier.predict([red], top=0)


def test_the_next_file_is_decoded_while_one_is_scored(write: Callable[..., str]) -> None:
    classifier = colour_classifier()
    paths = [write(f"{number}.mp4", ("red", 9)) for number in range(4)]
    decoder = classifier.decoder
    assert isinstance(decoder, CountingDecoder)
    taken: list[str] = []

    def files() -> Iterator[str]:
        for path in paths:
            taken.append(path)
            yield path

    for number, _ in enumerate(classifier.predict(files())):
        assert len(taken) == min(number + 2, 4)
    assert len(decoder.readings) == 4
    assert len(decoder.threads) == 1
    assert threading.get_ident() not in decoder.threads
    assert decoder.num_open == 0


def test_an_iteration_that_is_left_closes_its_files(write: Callable[..., str]) -> None:
    classifier = colour_classifier(UniformClips(2, 1, 1), batch_size=1)
    paths = [write(f"{number}.mp4", ("red", 30)) for number in range(3)]
    outcomes = classifier.outcomes(paths, Wanted(timeline=True))
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    classifier._thread.submit(lambda: None).result()
    decoder = classifier.decoder
    assert isinstance(decoder, CountingDecoder)
    assert decoder.num_open == 0
    assert decoder.closed_by == decoder.threads  # and not wherever the garbage collector came by


class Broken(CountingDecoder):
    def open(self, path: str | Path):
        if "defect" in Path(path).name:
            raise KeyError("of the decoder")
        if "denied" in Path(path).name:
            raise PermissionError(13, "Permission denied")
        return super().open(path)


def test_a_defect_of_the_decoder_comes_out_and_a_denial_is_the_files(write: Callable[..., str]) -> None:
    classifier = colour_classifier()
    classifier.decoder = Broken()
    red = write("red.mp4", ("red", 9))
    denied, answered = classifier.predict(["denied.mp4", red])
    assert denied.error == "cannot be read: Permission denied"
    assert answered.error is None
    predictions = classifier.predict([red, "defect.mp4"])
    assert next(predictions).error is None
    with pytest.raises(KeyError, match="of the decoder"):
        next(predictions)
    assert next(classifier.predict([red])).error is None


def test_scores_that_are_no_numbers_are_no_answer(write: Callable[..., str]) -> None:
    classifier = colour_classifier()
    network = classifier.scorer.network
    assert isinstance(network, ColourNetwork)
    torch.nn.init.constant_(network.head.weight, float("nan"))
    (prediction,) = classifier.predict(write("v.mp4", ("red", 9)))
    assert (prediction.top, prediction.error) == ((), "the network gives scores that are no finite numbers")


def test_all_frames_come_in_parts(write: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videogn.prediction.classifier.PART_BYTES", 24 * 32 * 3 * 7)
    classifier = colour_classifier()
    path = write("v.mp4", ("red", 20), ("blue", 13), fps=24)
    parts = list(classifier.frames(path))
    frames, timestamps = all_frames(path)
    assert np.array_equal(np.concatenate([part.frames for part in parts]), frames)
    assert np.concatenate([part.seconds for part in parts]).tolist() == (timestamps - timestamps[0]).tolist()
    assert [len(part.frames) for part in parts] == [7, 7, 7, 7, 5]
    assert {part.fps for part in parts} == {24.0}

    class Short(CountingDecoder):
        """Finds out at frame 16 that there are 18."""

        def open(self, path: str | Path):
            video = super().open(path)
            frames = video.frames

            def short(indices):
                if 16 in indices and video.num_frames == 33:
                    video.num_frames, video.timestamps = 18, video.timestamps[:18]
                    raise ShortRead(path, "18 frames decode of the 33 promised")
                return frames(indices)

            video.frames = short
            return video

    classifier.decoder = Short()
    assert np.array_equal(np.concatenate([part.frames for part in classifier.frames(path)]), frames[:18])


def test_odd_files(real_videos: Path) -> None:
    """Whatever decodes has an answer, a timeline that covers it, and as many frames to annotate as decode."""
    classifier = colour_classifier(UniformClips(4, 8, 2))
    classifier.decoder = AutoDecoder()
    names = ["decord/corrupted.mp4", "decord/video_90.mov", "mmaction2/part_0.mp4", "mmaction2/test.avi", "mmaction2/test.wav"]
    paths = [str(real_videos / "odd" / name) for name in names]
    for path, outcome in zip(paths, classifier.outcomes(paths, Wanted(timeline=True, features=True)), strict=True):
        if path.endswith(".wav"):
            assert outcome.error is not None
            continue
        assert outcome.error is None, path
        assert outcome.timeline is not None
        segments = outcome.timeline.segments
        assert (segments[0].start_seconds, segments[-1].end_seconds) == (0, outcome.timeline.duration_seconds)
        assert all(one.end_seconds == other.start_seconds for one, other in pairwise(segments))
        decoded = {"decord/corrupted.mp4": 49, "decord/video_90.mov": 3, "mmaction2/part_0.mp4": 32, "mmaction2/test.avi": 164}
        assert sum(len(part.frames) for part in classifier.frames(path)) == decoded["/".join(Path(path).parts[-2:])]
