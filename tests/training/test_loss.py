"""The losses against their definitions, class by class and clip by clip, and against torch's where it has one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from videogn.training.class_weights import class_weights, describe
from videogn.training.loss import CrossEntropy, FocalLoss
from videogn.types import InputError

WEIGHT = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 2, 0, 1])
MIXED = 0.7 * one_hot(LABELS, 3).double() + 0.3 * one_hot(LABELS.roll(1), 3).double()


@pytest.fixture
def scores() -> Tensor:
    return 3 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def weighted(loss: FocalLoss, weight: Tensor | None = WEIGHT) -> FocalLoss:
    loss.weight = weight
    return loss


def defined(scores: Tensor, labels: Tensor, gamma: float, smoothing: float, weight: Tensor | None) -> float:
    total = 0.0
    for row, values in zip(labels.tolist(), scores.tolist(), strict=True):
        shares = row if isinstance(row, list) else [float(k == row) for k in range(3)]
        whole = sum(math.exp(value) for value in values)
        for k, value in enumerate(values):
            p = math.exp(value) / whole
            share = (1 - smoothing) * shares[k] + smoothing / 3
            total += (1.0 if weight is None else float(weight[k])) * share * (1 - p) ** gamma * -math.log(p)
    return total / len(scores)


@pytest.mark.parametrize("labels", [LABELS, MIXED], ids=["indices", "mixed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_follows_its_definition(scores: Tensor, labels: Tensor, gamma: float, smoothing: float, weight: Tensor | None) -> None:
    expected = defined(scores, labels, gamma, smoothing, weight)
    assert float(weighted(FocalLoss(gamma, smoothing), weight)(scores, labels)) == pytest.approx(expected, rel=1e-13)
    if not gamma:
        assert float(weighted(CrossEntropy(smoothing), weight)(scores, labels)) == pytest.approx(expected, rel=1e-13)
        if weight is None or labels.ndim == 2:  # with weights and indices torch divides by something else
            other = nn.CrossEntropyLoss(weight, label_smoothing=smoothing)(scores, labels)
            assert float(other) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("loss", [weighted(CrossEntropy()), weighted(FocalLoss())])
def test_small_batches_make_up_a_large_one(scores: Tensor, loss: nn.Module) -> None:
    """Which torch's weighted mean does not: of one clip it has no weight at all."""
    alone = torch.stack([loss(scores[row : row + 1], LABELS[row : row + 1]) for row in range(6)])
    assert float(alone.mean()) == pytest.approx(float(loss(scores, LABELS)), rel=1e-13)
    torchs = nn.CrossEntropyLoss(WEIGHT)
    assert torchs(scores[:1], LABELS[:1]) == nn.CrossEntropyLoss()(scores[:1], LABELS[:1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_is_finite_where_the_network_is_sure(gamma: float, dtype: torch.dtype) -> None:
    scores = torch.tensor([[200.0, 0.0, -200.0], [1e4, 0.0, 0.0], [30.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    for labels in (torch.tensor([0, 0, 0]), torch.tensor([2, 1, 1])):
        (gradient,) = torch.autograd.grad(FocalLoss(gamma)(scores, labels), scores)
        assert gradient.isfinite().all()


def test_balanced_weights_make_classes_equal() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [3] * 1)
    weights = class_weights("balanced", ["a", "b", "c", "d"], labels)
    assert weights is not None
    assert weights[2] == 1  # no video has it
    totals = [float(weights[k]) * count for k, count in ((0, 6), (1, 3), (3, 1))]
    assert totals == pytest.approx([10 / 3] * 3)
    assert float(weights[labels].mean()) == pytest.approx(1)
    assert describe(weights, ["a", "b", "c", "d"]) == "class weights, least and largest: 0.556 (a), 3.33 (d)"


def test_a_loss_makes_its_own_weights() -> None:
    for loss in (CrossEntropy(class_weights=[1, 3]), FocalLoss(class_weights={"b": 3})):
        assert loss.weight is None
        loss.weigh(["a", "b"], np.array([0, 1]))
        assert loss.weight is not None
        assert loss.weight.tolist() == [1, 3]
    plain = CrossEntropy()
    plain.weigh(["a", "b"], np.array([0, 1]))
    assert plain.weight is None


def test_weights_by_name_and_in_order() -> None:
    classes, labels = ["jump up", "run", "2"], np.array([0, 1, 2])
    assert class_weights(None, classes, labels) is None
    assert class_weights([1, 0.5, 2], classes, labels).tolist() == [1, 0.5, 2]  # pyright: ignore[reportOptionalMemberAccess]
    named = class_weights({"run": 3, 2: 0.5}, classes, labels)  # a name that YAML takes for a number
    assert named is not None
    assert named.tolist() == [1, 3, 0.5]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([1.0], r"1 numbers for 2 classes; give one for each"),
        ([1.0, -1.0], r"give numbers from 0 up, not all of them 0"),
        ([0, 0], r"not all of them 0"),
        ([True, 1], r"give numbers from 0 up"),
        ({"walkin": 2}, r"'walkin' is not one of the 2 classes; nearest: walking"),
        ("equal", r"class_weights=equal: give balanced, a list of numbers, {CLASS: NUMBER}, or null"),
        (2.0, r"class_weights=2.0: give balanced"),
    ],
)
def test_weights_that_are_none(chosen: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        class_weights(chosen, ["walking", "running"], np.array([0, 1]))


@pytest.mark.parametrize(("values", "message"), [({"gamma": -1}, "gamma=-1"), ({"label_smoothing": 1.5}, "label_smoothing=1.5")])
def test_values_that_are_none(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"FocalLoss: {message}"):
        FocalLoss(**values)
