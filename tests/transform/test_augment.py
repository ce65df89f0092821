"""RandomResizedCrop against torchvision's, and what both crops share."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from videogn.transform.appearance import MAX_ASPECT, RandomAppearance
from videogn.transform.augment import RandomCrop, RandomResizedCrop, RandomShortSideCrop
from videogn.types import InputError

sides = st.integers(1, 700)
ASPECT = [3 / 4, 4 / 3]


def crop(name: str, flip: float | bool, appearance: RandomAppearance | None = None) -> RandomCrop:
    if name == "short_side":
        return RandomShortSideCrop(16, [16, 24], flip, appearance)
    return RandomResizedCrop(16, [0.08, 1.0], ASPECT, flip, appearance)


@given(sides, sides, st.integers(0, 2**32 - 1))
def test_window_lies_in_the_frame(height: int, width: int, seed: int) -> None:
    top, left, h, w, _ = RandomResizedCrop(16, [0.08, 1.0], ASPECT, 0.5).draw(height, width, np.random.default_rng(seed))
    assert h > 0
    assert w > 0
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width


@pytest.mark.parametrize(("height", "width"), [(240, 320), (400, 300), (300, 900)])
def test_windows_are_distributed_as_torchvisions(height: int, width: int, rng: np.random.Generator) -> None:
    """Kolmogorov and Smirnov's distance of two samples; 1.95 sqrt(2 / n) is its 0.999 quantile."""
    draws = 3000
    ours = np.array([RandomResizedCrop(16, [0.08, 1.0], ASPECT, 0.5).window(height, width, rng) for _ in range(draws)], float)
    theirs, torch_seed = v2.RandomResizedCrop(16, (0.08, 1.0), (3 / 4, 4 / 3)), 0
    torch.manual_seed(torch_seed)
    boxes = [theirs.make_params([torch.empty(3, height, width)]) for _ in range(draws)]
    expected = np.array([[box["top"], box["left"], box["height"], box["width"]] for box in boxes], float)
    for measure in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: b[:, 3] / b[:, 2],
        lambda b: b[:, 0] / (height - b[:, 2] + 1),
        lambda b: b[:, 1] / (width - b[:, 3] + 1),
    ):
        one, other = np.sort(measure(ours)), np.sort(measure(expected))
        at = np.concatenate([one, other])
        distance = np.abs(np.searchsorted(one, at, "right") - np.searchsorted(other, at, "right")).max() / draws
        assert distance < 1.95 * (2 / draws) ** 0.5


@pytest.mark.parametrize(("height", "width"), [(100, 1000), (1000, 100), (90, 121), (121, 90), (101, 333)])
def test_what_does_not_fit_falls_back_as_torchvisions(height: int, width: int, rng: np.random.Generator) -> None:
    # The whole area at an aspect other than the frame's never fits.
    expected = v2.RandomResizedCrop(16, (1.0, 1.0), (3 / 4, 4 / 3)).make_params([torch.empty(3, height, width)])
    window = RandomResizedCrop(16, [1.0, 1.0], ASPECT, 0.5).window(height, width, rng)
    assert window == (expected["top"], expected["left"], expected["height"], expected["width"])


def test_a_crop_that_is_not_square_becomes_one(rng: np.random.Generator) -> None:
    transform = RandomResizedCrop(16, [0.3, 0.4], [2.0, 2.0], 0.0)
    window = transform.draw(90, 120, rng)
    assert window.width == pytest.approx(2 * window.height, abs=2)
    # Columns of one colour: resized they are still columns, in the same order.
    frames = np.broadcast_to(np.arange(120, dtype=np.uint8)[None, None, :, None], (2, 90, 120, 3)).copy()
    clip = transform.cut(frames, window)
    assert clip.shape == (2, 16, 16, 3)
    assert (clip == clip[:1, :1]).all()
    assert (clip[0, 0, 1:, 0].int() - clip[0, 0, :-1, 0].int()).min() > 0
    # The first and the last of 16 columns: 15 / 16 of the window's width apart, each rounded, and pulled inwards at the edge.
    assert int(clip[0, 0, -1, 0]) - int(clip[0, 0, 0, 0]) == pytest.approx(window.width * 15 / 16, abs=2.5)


@pytest.mark.parametrize("name", ["short_side", "resized"])
@pytest.mark.parametrize(("flip", "share"), [(False, 0.0), (True, 0.5), (0.0, 0.0), (1.0, 1.0), (0.3, 0.3)])
def test_flip_is_a_probability_or_a_yes_or_no(name: str, flip: float | bool, share: float, rng: np.random.Generator) -> None:
    transform = crop(name, flip)
    measured = np.mean([transform.draw(40, 50, rng).flip for _ in range(2000)])
    assert abs(measured - share) <= 4 * (share * (1 - share) / 2000) ** 0.5


@pytest.mark.parametrize("name", ["short_side", "resized"])
def test_an_appearance_does_not_move_the_window(name: str) -> None:
    appearance = RandomAppearance(brightness=0.4, num_ops=2, erase_probability=0.5)
    for seed in range(10):
        plain, colored = np.random.default_rng(seed), np.random.default_rng(seed)
        assert crop(name, 0.5).draw(40, 50, plain) == crop(name, 0.5, appearance).draw(40, 50, colored)
        assert crop(name, 0.5).draw_appearance(plain) is None
        table = crop(name, 0.5, appearance).draw_appearance(colored)
        assert table is not None
        assert table.shape == (4, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"area": [0.0, 1.0]}, r"transform: area=\[0.0, 1.0\]; shares of the frame's area: give 0 < low <= high <= 1"),
        ({"area": [0.5, 1.5]}, r"transform: area=\[0.5, 1.5\]"),
        ({"aspect": [2.0, 1.0]}, r"transform: aspect=\[2.0, 1.0\]; quotients of two sides: give 0.001 <= low <= high <= 1000"),
        ({"aspect": [1e-308, 1e300]}, r"transform: aspect=\[1e-308, 1e\+300\]; quotients"),
        ({"aspect": ["a", "b"]}, r"transform: aspect=\['a', 'b'\]; give two numbers"),
        ({"area": 1}, r"transform: area=1; give two numbers"),
        ({"area": [0.5, float("nan")]}, r"transform: area=\[0.5, nan\]; give two numbers"),
        ({"flip": "abc"}, r"transform: flip=abc is no probability; give 0 to 1, or true or false: set dataset\.flip"),
        ({"flip": None}, r"transform: flip=None is no probability"),
        ({"aspect": [1.0]}, r"transform: aspect=\[1.0\]; give two numbers"),
        ({"flip": -0.5}, r"transform: flip=-0.5 is no probability; give 0 to 1"),
    ],
)
def test_errors_name_the_remedy(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(RandomResizedCrop, **{"crop_size": 16, "area": [0.08, 1.0], "aspect": ASPECT, "flip": 0.5, **options})


@pytest.mark.parametrize("short_side", [16, None, "16", [16], [16, 16.5], ["16", "20"], [16, True]], ids=str)
def test_two_whole_short_sides(short_side: Any) -> None:
    text = re.escape(f"transform: short_side={short_side}; give two whole numbers, [low, high]: set train_short_side")
    with pytest.raises(InputError, match=text):
        build(RandomShortSideCrop, 16, short_side, 0.5)


@pytest.mark.parametrize("aspect", [[1 / MAX_ASPECT] * 2, [MAX_ASPECT] * 2, [1 / MAX_ASPECT, MAX_ASPECT]], ids=str)
def test_the_most_extreme_aspects_give_a_window(aspect: list[float]) -> None:
    for height, width in ((1, 1), (1, 4000), (4000, 1), (240, 320)):
        for seed in range(20):
            window = RandomResizedCrop(16, [0.08, 1.0], aspect, 0.5).draw(height, width, np.random.default_rng(seed))
            assert 0 <= window.top < window.top + window.height <= height
            assert 0 <= window.left < window.left + window.width <= width


def build(kind: type, *arguments: Any, **options: Any) -> None:
    """As a configuration does: with values of any type."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RandomCrop, "__init__", inspect.unwrap(RandomCrop.__init__))
        inspect.unwrap(kind.__init__)(object.__new__(kind), *arguments, **options)
