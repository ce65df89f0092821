"""Mixup and cutmix against torchvision's, their draws, and what the labels say."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2

from videogn.transform.mixing import Mixing, paste
from videogn.types import InputError

CLASSES = 5


def batch(num_clips: int = 4, height: int = 9, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip n is n everywhere: what came from where can be read off."""
    inputs = torch.arange(float(num_clips))[:, None, None, None, None].expand(num_clips, 3, 2, height, width).contiguous()
    return inputs, torch.arange(num_clips) % CLASSES


def own_share(labels: torch.Tensor) -> float:
    """The share of the first clip's own class, 0."""
    return float(labels[0, 0])


def shares(mixing: Mixing, draws: int) -> np.ndarray:
    return np.array([own_share(mixing(*batch(), CLASSES, 0, step, 0)[1]) for step in range(draws)])


def test_mixup_equals_torchvisions() -> None:
    inputs, labels = torch.randn(4, 3, 2, 9, 12, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 4, 1, 0])
    result, soft = Mixing(mixup_alpha=0.8)(inputs, labels, CLASSES, seed=3, step=7, rank=1)
    share = float(soft[1, 4])
    assert 0 < share < 1
    theirs = v2.MixUp(num_classes=CLASSES)
    parameters = {"labels": labels, "batch_size": 4, "lam": share}
    video = tv_tensors.Video(inputs.transpose(1, 2))  # torchvision's axes, N T C H W
    # Sums of two products of numbers below 5: two roundings each.
    torch.testing.assert_close(
        result, theirs.transform(video, parameters).as_subclass(torch.Tensor).transpose(1, 2), atol=2e-6, rtol=0
    )
    torch.testing.assert_close(soft, theirs.transform(labels, parameters), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("share", "row", "column"), [(0.3, 4, 6), (0.75, 0, 0), (0.5, 8, 11), (1.0, 3, 3), (0.0, 5, 5)])
def test_cutmix_pastes_the_box_of_torchvisions_rule(share: float, row: int, column: int) -> None:
    inputs = torch.randn(4, 3, 2, 9, 12, generator=torch.Generator().manual_seed(0))
    result, left = paste(inputs, share, row, column)
    half = 0.5 * (1 - share) ** 0.5
    x1, x2 = max(column - int(half * 12), 0), min(column + int(half * 12), 12)
    y1, y2 = max(row - int(half * 9), 0), min(row + int(half * 9), 9)
    assert left == 1 - (x2 - x1) * (y2 - y1) / (9 * 12)
    parameters = {"labels": torch.zeros(4), "batch_size": 4, "box": (x1, y1, x2, y2), "lam_adjusted": left}
    expected = v2.CutMix(num_classes=CLASSES).transform(tv_tensors.Video(inputs.transpose(1, 2)), parameters)
    assert torch.equal(result, expected.as_subclass(torch.Tensor).transpose(1, 2))


@given(st.integers(2, CLASSES), st.integers(1, 12), st.integers(1, 12), st.integers(0, 50), st.booleans())
def test_labels_say_what_the_clip_shows(num_clips: int, height: int, width: int, step: int, cut: bool) -> None:
    mixing = Mixing(cutmix_alpha=1.0) if cut else Mixing(mixup_alpha=1.0)
    inputs, labels = batch(num_clips, height, width)
    before = torch.clone(inputs)
    result, soft = mixing(inputs, labels, CLASSES, 0, step, 0)
    assert torch.equal(inputs, before)
    # Two float32 products.
    torch.testing.assert_close(soft.sum(1), torch.ones(num_clips), atol=1e-6, rtol=0)
    # Clip n is n, so its mean is that of the two classes by their shares.
    torch.testing.assert_close(result.mean((1, 2, 3, 4)), soft @ torch.arange(float(CLASSES)), atol=1e-5, rtol=0)
    # The same in all frames and colours.
    assert torch.equal(result, result[:, :1, :1].expand_as(result))
    if cut:
        neighbour = torch.arange(float(num_clips)).roll(1)
        for n in range(num_clips):
            assert set(result[n].unique().tolist()) <= {float(n), float(neighbour[n])}


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_are_beta(alpha: float) -> None:
    """Kolmogorov and Smirnov's distance of two samples; 1.95 sqrt(2 / n) is its 0.999 quantile."""
    draws = 2000
    measured = np.sort(shares(Mixing(mixup_alpha=alpha), draws))
    expected = np.sort(np.random.default_rng(1).beta(alpha, alpha, draws).astype(np.float32))
    at = np.concatenate([measured, expected])
    distance = np.abs(np.searchsorted(measured, at, "right") - np.searchsorted(expected, at, "right")).max() / draws
    assert distance < 1.95 * (2 / draws) ** 0.5


def test_probabilities() -> None:
    draws = 1500
    mixing = Mixing(mixup_alpha=1.0, cutmix_alpha=1.0, probability=0.6, switch_probability=0.25)
    kinds = []
    for step in range(draws):
        inputs, labels = batch(2, 40, 40)
        result, soft = mixing(inputs, labels, CLASSES, 0, step, 0)
        if torch.equal(result, inputs) and own_share(soft) == 1:
            kinds.append("none")
        else:
            kinds.append("cutmix" if set(result.unique().tolist()) <= {0.0, 1.0} else "mixup")
    for kind, probability in (("none", 0.4), ("cutmix", 0.15), ("mixup", 0.45)):
        # Four standard deviations, and the boxes of no pixel: sqrt(1 - share) < 2 / 40 in 0.25% of cutmixes.
        bound = 4 * (probability * (1 - probability) / draws) ** 0.5 + 0.0025
        assert abs(kinds.count(kind) / draws - probability) < bound, kind


def test_a_draw_depends_on_seed_step_and_rank_alone() -> None:
    mixing, again = Mixing(mixup_alpha=1.0, cutmix_alpha=1.0), Mixing(mixup_alpha=1.0, cutmix_alpha=1.0)
    keys = [(seed, step, rank) for seed in range(3) for step in range(3) for rank in range(3)]
    first = [mixing(*batch(), CLASSES, *key) for key in keys]
    torch.manual_seed(1)
    second = [again(*batch(), CLASSES, *key) for key in reversed(keys)][::-1]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    assert len({one[0].numpy().tobytes() for one in first}) == len(keys)


def test_a_mixing_draw_is_no_clip_draw() -> None:
    """numpy pads a key with zeros: (seed, step, rank) would draw what the clip (seed, epoch, video, 0) draws."""
    clip = np.random.default_rng([3, 7, 1, 0])
    clip.random(2)
    assert own_share(Mixing(mixup_alpha=0.8)(*batch(), CLASSES, 3, 7, 1)[1]) != pytest.approx(clip.beta(0.8, 0.8), abs=1e-6)


@pytest.mark.parametrize(
    "mixing", [Mixing(), Mixing(mixup_alpha=1.0, probability=0.0), Mixing(cutmix_alpha=1.0, probability=0.0)]
)
def test_off_is_off(mixing: Mixing) -> None:
    assert not mixing.is_on
    inputs, labels = batch()
    result, soft = mixing(inputs, labels, CLASSES, 0, 0, 0)
    assert torch.equal(result, inputs)
    assert torch.equal(soft, torch.nn.functional.one_hot(labels, CLASSES).float())


@pytest.mark.parametrize("mixing", [Mixing(mixup_alpha=1.0), Mixing(cutmix_alpha=1.0)])
def test_one_clip_stays_as_it_is(mixing: Mixing) -> None:
    inputs, labels = torch.randn(1, 3, 2, 5, 5), torch.tensor([3])
    result, soft = mixing(inputs, labels, CLASSES, 0, 0, 0)
    assert torch.equal(result, inputs)
    assert soft.tolist() == [[0, 0, 0, 1, 0]]


@pytest.mark.parametrize("mixing", [Mixing(mixup_alpha=1.0), Mixing(cutmix_alpha=1.0)])
def test_the_memory_format_stays(mixing: Mixing) -> None:
    inputs = torch.randn(4, 3, 2, 9, 12).to(memory_format=torch.channels_last_3d)
    result, _ = mixing(inputs, torch.arange(4), CLASSES, 0, 0, 0)
    assert result.is_contiguous(memory_format=torch.channels_last_3d)


def test_label_smoothing_goes_with_shares() -> None:
    """CrossEntropyLoss on shares y: the mean of -sum (y (1 - s) + s / K) log p. Unmixed, it agrees with that on indices."""
    logits = torch.randn(4, CLASSES, generator=torch.Generator().manual_seed(0))
    loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    inputs, labels = batch()
    _, soft = Mixing(mixup_alpha=1.0)(inputs, labels, CLASSES, 0, 0, 0)
    expected = -((soft * 0.9 + 0.1 / CLASSES) * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss(logits, soft), expected)
    _, hard = Mixing()(inputs, labels, CLASSES, 0, 0, 0)
    torch.testing.assert_close(loss(logits, hard), loss(logits, labels))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup_alpha": -1.0}, r"mixing: mixup_alpha=-1.0; give a number above 0, or 0 to leave it out"),
        ({"cutmix_alpha": float("nan")}, r"mixing: cutmix_alpha=nan"),
        ({"mixup_alpha": "abc"}, r"mixing: mixup_alpha=abc; give a number above 0"),
        ({"cutmix_alpha": True}, r"mixing: cutmix_alpha=True; give a number above 0"),
        ({"probability": None}, r"mixing: probability=None is no probability"),
        ({"probability": 1.1}, r"mixing: probability=1.1 is no probability; give 0 to 1"),
        ({"switch_probability": -0.1}, r"mixing: switch_probability=-0.1 is no probability"),
    ],
)
def test_errors_name_the_remedy(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        inspect.unwrap(Mixing.__init__)(Mixing(), **options)
