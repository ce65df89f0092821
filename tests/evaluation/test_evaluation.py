"""Scores, their metrics and their protocol, against naive versions."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

import videogn.evaluation.aggregation
from videogn.evaluation.aggregation import AGGREGATIONS, aggregate
from videogn.evaluation.metrics import (
    calibration,
    calibration_error,
    classification_metrics,
    confusion,
    hardest,
    intervals,
    true_rank,
)
from videogn.evaluation.multi_view import Scores, ViewCollector
from videogn.evaluation.protocol import Protocol, protocol_hash
from videogn.evaluation.result import protocol_results, read_result, write_result, write_scores
from videogn.sampler.sliding_clips import SlidingClips
from videogn.sampler.uniform_clips import UniformClips
from videogn.transform.views import Crops
from videogn.types import Batch, DeadVideo, InputError

PROTOCOL = Protocol(UniformClips(1, 1, 3), Crops(1, 1, 1))
NUM_VIDEOS, VIEWS, CLASSES = 6, 3, tuple("abcdefgh")


# What a reader relies on, beside the scores.
FACTS = dict.fromkeys(
    ("command", "command_line", "directory", "split", "dataset", "hardware", "versions", "config_hash", "timing"), ""
)
ENTRY = dict.fromkeys(("metrics", "protocol_hash", "intervals_95", "dead_videos"), "")


def of_views(views: np.ndarray) -> Scores:
    """Of what the softmax of the logits is to be."""
    with np.errstate(divide="ignore"):  # a probability of 0
        return Scores(np.log(views.astype(np.float64)).astype(np.float32), ())


def made_scores(rng: np.random.Generator) -> Scores:
    views = rng.dirichlet(np.full(8, 0.5), (40, VIEWS)).astype(np.float32)
    views[3] = np.float32(1 / 8)  # a tie of all classes
    views[7] = np.nan
    return dataclasses.replace(of_views(views), dead=(DeadVideo(7, "g.mp4", "broken"),))


def test_metrics_equal_a_naive_version(rng: np.random.Generator) -> None:
    scores, labels = made_scores(rng), rng.integers(0, 7, 40)  # class h has no video
    right1, right5, losses = [], [], []
    views = torch.from_numpy(scores.logits).double().softmax(2).numpy()
    for video, label in zip(views, labels.tolist(), strict=True):
        if np.isnan(video).any():
            right1.append(False)
            right5.append(False)
            continue
        mean = [sum(float(view[k]) for view in video) / VIEWS for k in range(8)]
        order = sorted(range(8), key=lambda k, mean=mean: (-mean[k], k))
        right1.append(order[0] == label)
        right5.append(label in order[:5])
        losses.append(-np.log(mean[label]))
    metrics = classification_metrics(scores, labels, CLASSES)
    assert metrics["top1"] == np.mean(right1)
    assert metrics["top5"] == np.mean(right5)
    assert metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-12)  # float64 on both sides
    for index, name in enumerate(CLASSES):
        of_class = [r for r, label in zip(right1, labels, strict=True) if label == index]
        row = metrics["per_class"][name]
        assert (row["num_videos"], row["top1"]) == (len(of_class), np.mean(of_class) if of_class else None)
    assert metrics["per_class"]["h"]["top1"] is None


def test_metrics_of_classes_equal_torchmetrics(rng: np.random.Generator) -> None:
    views = rng.dirichlet(np.full(8, 0.3), (60, VIEWS)).astype(np.float32)
    views[:, :, 6:] = 0  # g and h are never answered, and h has no video
    scores, labels = of_views(views), rng.integers(0, 7, 60)
    metrics = classification_metrics(scores, labels, CLASSES)
    probabilities, target = torch.from_numpy(scores.videos()), torch.from_numpy(labels)
    for name, average in (("macro_f1", "macro"), (None, "none")):
        f1 = multiclass_f1_score(probabilities, target, 8, average=average)
        ours = metrics[name] if name else [row["f1"] or 0.0 for row in metrics["per_class"].values()]
        assert ours == pytest.approx(f1.tolist(), rel=1e-6)  # torchmetrics counts in float32
    precision = multiclass_precision(probabilities, target, 8, average="none")
    assert [row["precision"] or 0.0 for row in metrics["per_class"].values()] == pytest.approx(precision.tolist(), rel=1e-6)
    assert [metrics["per_class"][name]["precision"] for name in "gh"] == [None, None]
    assert [metrics["per_class"][name]["f1"] for name in "gh"] == [0.0, None]
    seven = multiclass_recall(probabilities, target, 8, average="none")[:7]
    assert metrics["mean_class"] == pytest.approx(float(seven.mean()), rel=1e-6)
    error = multiclass_calibration_error(probabilities.clamp(max=1), target, 8, n_bins=15)
    assert metrics["calibration_error"] == pytest.approx(float(error), rel=1e-6)  # as above


def test_a_dead_video_lowers_f1_and_leaves_the_calibration(rng: np.random.Generator) -> None:
    views = rng.dirichlet(np.full(6, 0.3), (30, VIEWS)).astype(np.float32)
    labels = rng.integers(0, 6, 30)
    labels[4] = views[4].mean(0).argmax()
    whole = classification_metrics(of_views(views), labels, CLASSES[:6])
    others = np.arange(30) != 4
    without = classification_metrics(of_views(views[others]), labels[others], CLASSES[:6])
    views = views.copy()
    views[4] = np.nan
    metrics = classification_metrics(of_views(views), labels, CLASSES[:6])
    assert metrics["calibration_error"] == without["calibration_error"]
    row, before = (m["per_class"][CLASSES[labels[4]]] for m in (metrics, whole))
    hits, videos = before["top1"] * before["num_videos"], before["num_videos"]
    answers = hits / before["precision"]
    assert row["f1"] == pytest.approx(2 * (hits - 1) / (videos + answers - 1))
    assert row["top1"] == pytest.approx((hits - 1) / videos)


def test_confusion_counts_every_readable_video_once() -> None:
    answers = [0, 1, 1, 0, None]
    probabilities = np.full((5, 3), np.nan)
    for row, answer in enumerate(answers):
        if answer is not None:
            probabilities[row] = 0.1
            probabilities[row, answer] = 0.8
    assert confusion(probabilities, np.array([0, 0, 1, 2, 2])).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_calibration_of_a_sure_answer_and_of_none() -> None:
    views = np.zeros((2, 1, 4), np.float32)
    views[:, :, 1] = 1
    assert calibration(of_views(views).videos(), np.array([1, 0])) == [(2, 1.0, 0.5)]
    assert classification_metrics(of_views(views), np.array([1, 0]), CLASSES[:4])["calibration_error"] == 0.5
    dead = np.full((2, 4), np.nan)
    assert calibration_error(dead, np.array([1, 0])) is None


def test_intervals_are_those_of_the_binomial(rng: np.random.Generator) -> None:
    """The share of right videos in a resample of V, of which a share p is right, is binomial: its quantiles are known."""
    right = np.arange(200) < 130
    labels = rng.integers(0, 6, 200)
    views = np.full((200, 1, 6), 0.1, np.float32)
    views[np.arange(200), 0, np.where(right, labels, (labels + 1) % 6)] = 0.5
    low, high = intervals(of_views(views), labels)["top1"] or (0, 0)
    # float64 sums of C(200, i) p^i (1 - p)^(200 - i)
    chances = np.array([math.comb(200, i) * 0.65**i * 0.35 ** (200 - i) for i in range(201)]).cumsum()
    expected = [np.searchsorted(chances, q) / 200 for q in (0.025, 0.975)]
    # 2000 resamples place a 2.5% quantile to sqrt(.025 * .975 / 2000) = 0.35% of the resamples: with the density there, 0.17
    # videos of 200 per 0.1%, to 0.6 videos; allow three of those.
    assert [low, high] == pytest.approx(expected, abs=3 * 0.6 / 200)


def test_hardest_videos() -> None:
    views = np.full((5, 2, 3), 0.05, np.float32)
    labels = np.array([0, 1, 2, 0, 1])
    views[np.arange(5), :, labels] = np.array([0.9, 0.2, 0.5, 0.2, 0.0])[:, None]
    views[4] = np.nan
    scores = of_views(views / views.sum(2, keepdims=True))
    assert hardest(scores, labels, 2) == [1, 3]  # equal: in the order of the videos
    assert hardest(scores, labels, 9) == [1, 3, 2, 0]


def test_intervals_of_classes_and_of_few_classes() -> None:
    """Each class has two videos that agree, so a resample's mean over classes can only be that of the classes in it."""
    labels = np.array([0, 0, 1, 1, 2, 2])
    views = np.full((6, 1, 3), 0.2, np.float32)
    views[np.arange(6), 0, [0, 0, 1, 1, 0, 0]] = 0.6
    bounds = intervals(of_views(views), labels)
    assert bounds["top5"] is None
    low, high = bounds["mean_class"] or (0, 0)
    assert low == 0.5 or low == pytest.approx(1 / 3)
    assert high == 1.0
    assert intervals(of_views(views), labels) == bounds  # of the same seed


def test_a_dead_video_is_wrong_even_alone() -> None:
    scores = Scores(np.full((1, 2, 6), np.nan, np.float32), (DeadVideo(0, "a", "broken"),))
    metrics = classification_metrics(scores, np.array([0]), CLASSES[:6])
    assert (metrics["top1"], metrics["top5"], metrics["loss"]) == (0.0, 0.0, None)


def test_top5_needs_six_classes_and_a_loss_is_finite() -> None:
    views = np.zeros((1, 1, 5), np.float32)
    views[..., 0] = 1
    metrics = classification_metrics(of_views(views), np.array([4]), CLASSES[:5])
    assert metrics["top5"] is None
    assert metrics["loss"] == pytest.approx(-np.log(float(np.finfo(np.float64).tiny)))


def view_batch(rows: list[int], dead: list[DeadVideo]) -> Batch:
    videos = torch.tensor(rows, dtype=torch.int64).repeat_interleave(VIEWS)
    clips = torch.zeros(len(videos), 1, 1, 1, 3, dtype=torch.uint8)
    return Batch(clips, torch.zeros_like(videos), torch.zeros(len(videos), dtype=torch.bool), videos, dead)


def logits(rows: list[int]) -> torch.Tensor:
    parts = [torch.randn(VIEWS, 8, generator=torch.Generator().manual_seed(row)) for row in rows]
    return torch.cat(parts) if parts else torch.empty(0, 8)


def collected(rows: list[int], dead: list[DeadVideo]) -> ViewCollector:
    collector = ViewCollector(PROTOCOL, 8)
    for row in rows:
        collector.add(view_batch([row], []), logits([row]))
    collector.add(view_batch([], dead), logits([]))
    return collector


DEAD = DeadVideo(4, "four.mp4", "broken")


def test_views_come_in_any_order() -> None:
    scores = collected([5, 0, 3, 1, 2], [DEAD]).gather(NUM_VIDEOS)
    for row in (0, 1, 2, 3, 5):
        assert np.array_equal(scores.logits[row], logits([row]).numpy())
    assert np.isnan(scores.logits[4]).all()
    assert scores.alive().tolist() == [True, True, True, True, False, True]
    assert scores.dead == (DEAD,)


def test_bf16_scores_are_not_rounded_again() -> None:
    """A softmax in bf16 has steps of 0.4%."""
    collector, scores = ViewCollector(PROTOCOL, 8), logits([0]).bfloat16()
    collector.add(view_batch([0], []), scores)
    assert np.array_equal(collector.gather(1).logits[0], scores.float().numpy())


def test_a_missing_view_is_a_defect() -> None:
    with pytest.raises(RuntimeError, match=r"video 2: 0 of 3 views"):
        collected([0, 1, 3, 4, 5], []).gather(NUM_VIDEOS)
    collector = ViewCollector(PROTOCOL, 8)
    batch = view_batch([0], [])
    collector.add(Batch(*(part[:2] for part in batch[:4]), []), logits([0])[:2])
    with pytest.raises(RuntimeError, match=r"video 0: 2 of 3 views"):
        collector.gather(1)


def gather_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    rows, dead = ([0, 2, 5], []) if rank == 0 else ([1, 3], [DEAD])
    scores = collected(rows, dead).gather(NUM_VIDEOS)
    assert scores.dead == (DEAD,)
    np.save(f"{folder}/{rank}.npy", scores.logits)
    torch.distributed.destroy_process_group()


def test_aggregations_equal_a_naive_version(rng: np.random.Generator) -> None:
    logits = rng.normal(0, 3, (5, 4, 6)).astype(np.float32)
    logits[1] += 1e4  # of which the exponential overflows
    probabilities = torch.from_numpy(logits).double().softmax(2)
    geometric = probabilities.log().mean(1).exp()
    largest = probabilities.amax(1)
    expected = {
        "softmax_mean": probabilities.mean(1),
        "logit_mean": geometric / geometric.sum(1, keepdim=True),
        "max": largest / largest.sum(1, keepdim=True),
    }
    assert sorted(expected) == sorted(AGGREGATIONS)
    for name, answer in expected.items():
        # float64, whose logits of 1e4 are rounded to 2e-12
        np.testing.assert_allclose(aggregate(logits, name), answer.numpy(), rtol=1e-11)
    assert len({tuple(np.argsort(answer.numpy()).ravel()) for answer in expected.values()}) == 3  # they answer differently
    logits[2, 3, 1] = np.nan
    assert all(np.isnan(aggregate(logits, name)).any(1).tolist() == [False, False, True, False, False] for name in AGGREGATIONS)


def test_videos_with_as_many_views_as_they_are_long(rng: np.random.Generator, tmp_path: Path) -> None:
    """Each is answered as it would be without the others; what stands behind its views is not read."""
    videos = [torch.from_numpy(rng.normal(0, 2, (count, 8)).astype(np.float32)) for count in (3, 1, 5)]
    videos[2][4, 0] = np.nan  # a network that gave no number
    collector = ViewCollector(Protocol(SlidingClips(1, 1), Crops(1, 1, 1), "logit_mean"), 8)
    for row, views in enumerate(videos):
        batch = view_batch([row], [])
        index = torch.zeros(len(views), dtype=torch.int64)
        collector.add(Batch(*(part[index] for part in batch[:4]), []), views)
    collector.add(view_batch([], [DeadVideo(3, "three.mp4", "broken")]), logits([]))
    scores = collector.gather(4)
    assert scores.logits.shape == (4, 5, 8)
    assert scores.alive().tolist() == [True, True, False, False]
    for row in (0, 1):
        expected = videos[row].double().mean(0).softmax(0).numpy()
        np.testing.assert_allclose(scores.videos()[row], expected, rtol=1e-12)  # float64 on both sides
    assert np.isnan(scores.videos()[2:]).all()
    write_scores(tmp_path, {"dense": scores}, list("abcd"), np.zeros(4, np.int64), CLASSES)
    write_result(tmp_path, {**FACTS, "results": [{**ENTRY, "name": "dense", "protocol": {"aggregation": "logit_mean"}}]})
    read = read_result(tmp_path).scores["dense"]
    assert np.array_equal(read.videos(), scores.videos(), equal_nan=True)
    with pytest.raises(RuntimeError, match=r"video 4: 0 of its views"):
        collector.gather(5)


def test_a_large_result_is_aggregated_in_parts(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    many = rng.normal(0, 2, (50, 4, 6)).astype(np.float32)
    whole = aggregate(many, "max")
    monkeypatch.setattr(videogn.evaluation.aggregation, "_PART", 4 * 6 * 7)
    assert np.array_equal(aggregate(many, "max"), whole)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_scores_that_are_no_finite_numbers_are_wrong_and_listed(
    rng: np.random.Generator, value: float, aggregation: str, tmp_path: Path
) -> None:
    """As a network gives them whose activations pass the largest number of 16 bits."""
    scores = Scores(rng.normal(0, 1, (3, 2, 8)).astype(np.float32), (DeadVideo(2, "2.mp4", "broken"),), aggregation)
    scores.logits[2] = np.nan
    scores.logits[0, 1] = value  # of all classes, since -inf of one is but a probability of 0
    labels = np.array([0, 1, 2])
    protocol = Protocol(UniformClips(1, 1, 2), Crops(1, 1, 1), aggregation)
    (entry,) = protocol_results({"two": scores}, {"two": protocol}, "pyav", [f"{i}.mp4" for i in range(3)], labels, CLASSES)
    metrics = entry["metrics"]
    assert true_rank(scores, labels)[[0, 2]].tolist() == [8, 8]
    assert metrics["per_class"]["a"]["top1"] == 0
    assert metrics["top1"] == np.mean([label["top1"] == 1 for label in list(metrics["per_class"].values())[:3]])
    assert entry["dead_videos"] == [
        {"path": "0.mp4", "reason": "the network gives scores that are no finite numbers"},
        {"path": "2.mp4", "reason": "broken"},
    ]
    write_result(tmp_path, {"results": [entry]})  # JSON has no NaN
    json.loads((tmp_path / "result.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_a_protocol_knows_its_aggregations() -> None:
    with pytest.raises(InputError, match=r"aggregation=mean: use one of softmax_mean, logit_mean, max"):
        Protocol(UniformClips(1, 1, 3), Crops(1, 1, 1), "mean")


def test_two_processes_gather_what_one_has(tmp_path: Path) -> None:
    # Processes of their own: a fork after torch has started its threads can hang.
    ranks = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [rank.wait(60) for rank in ranks] == [0, 0]
    expected = collected([0, 1, 2, 3, 5], [DEAD]).gather(NUM_VIDEOS).logits
    for rank in range(2):
        assert np.array_equal(np.load(tmp_path / f"{rank}.npy"), expected, equal_nan=True)


def test_every_fact_changes_the_protocol_hash() -> None:
    facts = Protocol(UniformClips(8, 2, 10), Crops(64, 70, 3)).describe("pyav")
    changed = [{**facts, name: "other"} for name in facts]
    assert len({protocol_hash(f) for f in (facts, *changed)}) == len(facts) + 1
    assert protocol_hash(dict(reversed(facts.items()))) == protocol_hash(facts)


@pytest.mark.parametrize(
    "other",
    [
        Protocol(UniformClips(9, 2, 10), Crops(64, 70, 3)),
        Protocol(UniformClips(8, 3, 10), Crops(64, 70, 3)),
        Protocol(UniformClips(8, 2, 9), Crops(64, 70, 3)),
        Protocol(UniformClips(8, 2, 10), Crops(63, 70, 3)),
        Protocol(UniformClips(8, 2, 10), Crops(64, 71, 3)),
        Protocol(UniformClips(8, 2, 10), Crops(64, 70, 1)),
        Protocol(UniformClips(8, 2, 10), Crops(64, 70, 3), "max"),
        Protocol(SlidingClips(8, 2, 10), Crops(64, 70, 3)),
        Protocol(SlidingClips(8, 2, 16), Crops(64, 70, 3)),
    ],
)
def test_every_setting_is_among_the_facts(other: Protocol) -> None:
    protocol = Protocol(UniformClips(8, 2, 10), Crops(64, 70, 3))
    assert protocol_hash(other.describe("pyav")) != protocol_hash(protocol.describe("pyav"))
    assert protocol_hash(protocol.describe("decord")) != protocol_hash(protocol.describe("pyav"))
    assert protocol.num_views == 30
    assert dataclasses.replace(other) == other


def test_result_and_scores_come_back(rng: np.random.Generator, tmp_path: Path) -> None:
    scores, labels = made_scores(rng), rng.integers(0, 7, 40)
    metrics = classification_metrics(scores, labels, CLASSES)
    entry = {**ENTRY, "protocol": {"aggregation": "softmax_mean"}, "metrics": metrics}
    result = {**FACTS, "status": "done", "results": [entry], "name": "Übung"}
    write_result(tmp_path, result)
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8")) == {"schema": 2, **result}
    write_scores(tmp_path, {"ten_clip": scores}, [f"{i}.mp4" for i in range(40)], labels, CLASSES)
    with np.load(tmp_path / "scores.npz") as kept:
        assert np.array_equal(kept["ten_clip/logits"], scores.logits, equal_nan=True)
        assert np.array_equal(kept["labels"], labels)
        assert tuple(kept["classes"]) == CLASSES
    with pytest.raises(InputError, match=r"damaged \(KeyError: 'name'\); give a finished run"):
        read_result(tmp_path)
    result["results"][0]["name"] = "ten_clip"
    write_result(tmp_path, result)
    read = read_result(tmp_path)
    assert read.paths[3] == "3.mp4"
    assert np.array_equal(read.scores["ten_clip"].logits, scores.logits, equal_nan=True)
    assert classification_metrics(read.scores["ten_clip"], read.labels, read.classes) == result["results"][0]["metrics"]
    write_result(tmp_path, {**result, "schema": 1})
    with pytest.raises(InputError, match=r"of schema 1, and this videogn reads schema 2; test its checkpoint anew"):
        read_result(tmp_path)
    write_result(tmp_path, result)
    for key in ("command_line", "timing"):
        write_result(tmp_path, {name: fact for name, fact in result.items() if name != key})
        with pytest.raises(InputError, match=rf"damaged \(ValueError: no {key}\); give a finished run"):
            read_result(tmp_path)
    write_result(tmp_path, {**result, "results": []})
    with pytest.raises(InputError, match=r"damaged \(ValueError: no protocol, or no video\)"):
        read_result(tmp_path)
    write_result(tmp_path, result)
    write_scores(tmp_path, {"ten_clip": scores}, [f"{i}.mp4" for i in range(40)], labels, (*CLASSES, "i"))
    with pytest.raises(InputError, match=r"damaged \(ValueError: ten_clip: logits are float32 \(40, 3, 8\)\)"):
        read_result(tmp_path)
    write_scores(tmp_path, {"ten_clip": scores}, [f"{i}.mp4" for i in range(40)], labels, CLASSES)
    whole = (tmp_path / "scores.npz").read_bytes()
    with np.load(tmp_path / "scores.npz") as kept:
        np.savez_compressed(tmp_path / "all.npz", **kept)
    with zipfile.ZipFile(io.BytesIO(whole)) as stored, zipfile.ZipFile(tmp_path / "one.npz", "w") as mixed:
        for number, name in enumerate(stored.namelist()):
            mixed.writestr(name, stored.read(name), zipfile.ZIP_STORED if number else zipfile.ZIP_DEFLATED)
    for compressed in ("all.npz", "one.npz"):
        (tmp_path / compressed).replace(tmp_path / "scores.npz")
        with pytest.raises(InputError, match=r"damaged \(ValueError: compressed arrays, which may be of any size"):
            read_result(tmp_path)
    for damaged in (b"", whole[: len(whole) // 2]):
        (tmp_path / "scores.npz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"(no result|damaged) .*give a finished run"):
            read_result(tmp_path)
    (tmp_path / "scores.npz").write_bytes(whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result.json", "scores.npz"]


def test_a_path_that_is_no_utf_8_comes_back(rng: np.random.Generator, tmp_path: Path) -> None:
    path = os.fsdecode(b"caf\xe9/\xc3\x9c.mp4")
    write_result(tmp_path, {"path": path})
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["path"] == path
    scores, labels = made_scores(rng), rng.integers(0, 7, 40)
    write_scores(tmp_path, {"ten_clip": scores}, [path] * 40, labels, CLASSES)
    with np.load(tmp_path / "scores.npz") as kept:
        assert str(kept["paths"][0]) == path


if __name__ == "__main__":
    gather_rank(int(sys.argv[1]), sys.argv[2])
