"""What is drawn for a clip: the distributions, torchvision's beside them, and the values that are refused."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from videogn.transform.appearance import RAND_AUGMENT, Operation, RandomAppearance
from videogn.types import InputError


def ks_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Kolmogorov and Smirnov's: the largest distance of the two distribution functions."""
    at = np.concatenate([one, other])
    return float(
        np.abs(
            np.searchsorted(np.sort(one), at, "right") / len(one) - np.searchsorted(np.sort(other), at, "right") / len(other)
        ).max()
    )


def ks_limit(draws: int) -> float:
    """Its 0.999 quantile for two samples of `draws`."""
    return 1.95 * (2 / draws) ** 0.5


def tables(appearance: RandomAppearance, rng: np.random.Generator, draws: int, size: int = 64) -> np.ndarray:
    drawn = [appearance(size, rng) for _ in range(draws)]
    return torch.stack([table for table in drawn if table is not None]).numpy()


def test_nothing_is_drawn_unless_asked_for(rng: np.random.Generator) -> None:
    state = rng.bit_generator.state
    assert RandomAppearance()(64, rng) is None
    assert rng.bit_generator.state == state


def test_color_jitter_draws_torchvisions_ranges_in_any_order(rng: np.random.Generator) -> None:
    rows = tables(RandomAppearance(brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1), rng, 4000)
    ranges = {
        Operation.BRIGHTNESS: (0.6, 1.4),
        Operation.CONTRAST: (0.0, 2.5),
        Operation.SATURATION: (0.8, 1.2),
        Operation.HUE: (-0.1, 0.1),
    }
    for operation, (low, high) in ranges.items():
        values = rows[rows[..., 0] == operation][:, 1]
        assert len(values) == 4000
        assert ks_distance(values, np.linspace(low, high, 4000)) < ks_limit(4000)
    orders = {tuple(order) for order in rows[..., 0].astype(int).tolist()}
    assert len(orders) == 24
    # Each operation is first as often as any other: four standard deviations of 4000 draws at 1/4.
    first = np.bincount(rows[:, 0, 0].astype(int), minlength=5)[1:]
    assert np.abs(first / 4000 - 0.25).max() < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_only_what_is_asked_for_takes_a_row(rng: np.random.Generator) -> None:
    assert tables(RandomAppearance(hue=0.5), rng, 3).shape == (3, 1, 5)
    assert tables(RandomAppearance(brightness=0.1, num_ops=3, erase_probability=0.5), rng, 3).shape == (3, 5, 5)


def test_rand_augment_draws_every_operation_and_both_signs(rng: np.random.Generator) -> None:
    """Chi-square over 14 operations: 34.5 is the 0.999 quantile of 13 degrees of freedom."""
    rows = tables(RandomAppearance(num_ops=2, magnitude=15.0), rng, 3500)
    assert rows.shape == (3500, 2, 5)
    counts = np.bincount(rows[..., 0].astype(int).ravel(), minlength=16)
    expected = 2 * 3500 / 14
    assert ((counts[list(RAND_AUGMENT)] - expected) ** 2 / expected).sum() < 34.5
    assert counts.sum() == counts[list(RAND_AUGMENT)].sum()
    angles = rows[rows[..., 0] == Operation.ROTATE][:, 1]
    assert set(angles.tolist()) == {-15.0, 15.0}
    assert abs((angles > 0).mean() - 0.5) < 4 * (0.25 / len(angles)) ** 0.5
    # Drawn with repetition: both rows are the same operation in one of 14 clips.
    repeated = (rows[:, 0, 0] == rows[:, 1, 0]).mean()
    assert abs(repeated - 1 / 14) < 4 * (1 / 14 * 13 / 14 / 3500) ** 0.5


def test_magnitude_noise_is_normal_and_clipped(rng: np.random.Generator) -> None:
    rows = tables(RandomAppearance(num_ops=4, magnitude=9.0, magnitude_std=3.0), rng, 7000)
    angles = np.abs(rows[rows[..., 0] == Operation.ROTATE][:, 1])  # degrees are magnitudes: the strongest is 30 of both
    limit = ks_limit(len(angles))
    assert ks_distance(angles, np.clip(np.random.default_rng(1).normal(9, 3, len(angles)), 0, 30)) < limit
    wild = tables(RandomAppearance(num_ops=4, magnitude=28.0, magnitude_std=20.0), rng, 2000)
    angles = np.abs(wild[wild[..., 0] == Operation.ROTATE][:, 1])
    assert angles.max() == 30
    assert angles.min() == 0


@pytest.mark.parametrize("aspect", [(0.3, 3.3), (2.0, 4.0)], ids=["default", "tall"])
def test_erasing_is_distributed_as_torchvisions(aspect: tuple[float, float], rng: np.random.Generator) -> None:
    size, draws = 400, 2000
    rows = tables(RandomAppearance(erase_probability=1.0, erase_area=(0.02, 0.2), erase_aspect=aspect), rng, draws, size)[:, 0]
    assert (rows[:, 0] == Operation.ERASE).all()
    theirs = v2.RandomErasing(1.0, (0.02, 0.2), aspect)
    torch.manual_seed(0)
    boxes = [theirs.make_params([torch.empty(3, size, size)]) for _ in range(draws)]
    expected = np.array([[box["i"], box["j"], box["h"], box["w"]] for box in boxes], float)
    for measure in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: b[:, 2] / b[:, 3],
        lambda b: b[:, 0] / (size - b[:, 2] + 1),
        lambda b: b[:, 1] / (size - b[:, 3] + 1),
    ):
        assert ks_distance(measure(rows[:, 1:]), measure(expected)) < ks_limit(draws)
    assert (rows[:, 1] + rows[:, 3]).max() <= size
    assert (rows[:, 2] + rows[:, 4]).max() <= size


def test_erasing_happens_with_its_probability(rng: np.random.Generator) -> None:
    rows = tables(RandomAppearance(erase_probability=0.25), rng, 4000)[:, 0, 0]
    assert set(rows.tolist()) == {Operation.IDENTITY, Operation.ERASE}
    assert abs((rows == Operation.ERASE).mean() - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"brightness": -0.5}, r"brightness=-0.5; the factor lies within 1 - brightness and 1 \+ brightness: give 0 or more"),
        ({"contrast": float("inf")}, r"contrast=inf; .*give 0 or more"),
        ({"hue": 0.6}, r"hue=0.6; give 0 to 0.5"),
        ({"num_ops": -1}, r"num_ops=-1; give a whole number from 0"),
        ({"magnitude": 31.0}, r"magnitude=31.0; give 0 to 30"),
        ({"magnitude_std": -1.0}, r"magnitude_std=-1.0; give 0 or more"),
        ({"erase_probability": 1.5}, r"erase_probability=1.5 is no probability; give 0 to 1"),
        ({"erase_area": [0.5, 0.2]}, r"erase_area=\[0.5, 0.2\]; shares of the frame's area: give 0 < low <= high <= 1"),
        ({"erase_aspect": [0.0, 2.0]}, r"erase_aspect=\[0.0, 2.0\]; quotients of two sides: give 0.001 <= low <= high <= 1000"),
        ({"brightness": True}, r"brightness=True; .*give 0 or more"),
        ({"saturation": "abc"}, r"saturation=abc; .*give 0 or more"),
        ({"hue": "abc"}, r"hue=abc; give 0 to 0.5"),
        ({"magnitude": None}, r"magnitude=None; give 0 to 30"),
        ({"magnitude_std": float("nan")}, r"magnitude_std=nan; give 0 or more"),
        ({"erase_probability": True}, r"erase_probability=True is no probability"),
        ({"erase_aspect": [1e-308, 1e300]}, r"erase_aspect=\[1e-308, 1e\+300\]; quotients of two sides"),
        ({"erase_area": ["a", "b"]}, r"erase_area=\['a', 'b'\]; give two numbers"),
        ({"erase_area": [0.5]}, r"erase_area=\[0.5\]; give two numbers, \[low, high\]"),
    ],
)
def test_errors_name_the_remedy(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        inspect.unwrap(RandomAppearance.__init__)(RandomAppearance(), **options)
