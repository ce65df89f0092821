"""Windows lie in the frame; cutting, mirroring and normalizing equal their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videogn.transform.augment import RandomShortSideCrop
from videogn.transform.functional import cut, to_input
from videogn.transform.views import Crops
from videogn.types import InputError, Window

sides = st.integers(1, 700)


def frames(height: int, width: int, num_frames: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


@given(sides, sides, st.integers(0, 2**32 - 1))
def test_random_window_lies_in_the_frame(height: int, width: int, seed: int) -> None:
    top, left, h, w, _ = RandomShortSideCrop(112, [128, 171], 0.5).draw(height, width, np.random.default_rng(seed))
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    # The window is crop_size / s of the short side, s from 128 to 171, rounded to pixels.
    assert h == w
    assert max(1, 112 / 171 * min(height, width) - 0.5) <= h <= max(1, 112 / 128 * min(height, width) + 0.5)


@given(sides, sides, st.sampled_from([1, 3]))
def test_test_windows_are_centred_and_reach_the_ends(height: int, width: int, crops: int) -> None:
    windows = Crops(112, 128, crops).windows(height, width)
    assert len(windows) == crops
    middle = windows[crops // 2]
    for extent, start, side in ((height, middle.top, middle.height), (width, middle.left, middle.width)):
        assert abs(2 * start + side - extent) <= 1
    if crops == 3:
        long, starts = (width, [w.left for w in windows]) if width >= height else (height, [w.top for w in windows])
        assert starts[0] == 0
        assert starts[2] + middle.width == long


@pytest.mark.parametrize("window", [Window(0, 0, 37, 37), Window(3, 5, 31, 31), Window(2, 1, 16, 16), Window(4, 4, 9, 9)])
def test_cut_is_crop_then_resize(window: Window) -> None:
    source = frames(37, 53)
    patch = source[:, window.top : window.top + window.height, window.left : window.left + window.width]
    floats = torch.from_numpy(patch).permute(0, 3, 1, 2).double()
    expected = torch.nn.functional.interpolate(floats, size=(16, 16), mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    result = cut(source, window, (16, 16))
    # uint8 rounds after each of two passes (0.5 each), its weights are 8 to 16 bits wide: 1 / 255 of a value below 256 more.
    assert (result.double() - expected).abs().max() <= 2
    if window.height == 16:
        assert np.array_equal(result.numpy(), patch)


def test_one_window_for_every_frame() -> None:
    still = frames(37, 53, 1).repeat(5, axis=0)
    clip = cut(still, RandomShortSideCrop(16, [20, 30], 0.5).draw(37, 53, np.random.default_rng(1)), (16, 16))
    assert all(torch.equal(frame, clip[0]) for frame in clip)


def test_input_equals_its_definition() -> None:
    clips = torch.from_numpy(frames(5, 7, 6).reshape(2, 3, 5, 7, 3))
    mean, std = [110.0, 120.0, 130.0], [50.0, 60.0, 70.0]
    expected = (clips.numpy().astype(np.float64) - mean) / std
    expected[1] = expected[1, :, :, ::-1]
    result = to_input(clips, torch.tensor([False, True]), mean, std)
    # x * scale and shift are up to 6; four roundings (scale, shift, product, sum) of half an eps each.
    atol = 4 * 0.5 * 6 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(result.double(), torch.from_numpy(expected.transpose(0, 4, 1, 2, 3).copy()), atol=atol, rtol=0)


def test_flip_probability(rng: np.random.Generator) -> None:
    for flip in (0.0, 0.3, 1.0):
        transform = RandomShortSideCrop(8, [8, 8], flip)
        share = np.mean([transform.draw(20, 20, rng).flip for _ in range(2000)])
        assert abs(share - flip) <= 4 * (flip * (1 - flip) / 2000) ** 0.5


def test_errors_name_the_remedy() -> None:
    with pytest.raises(InputError, match=r"crop_size <= low <= high: set train_short_side"):
        RandomShortSideCrop(64, [60, 70], 0.5)
    with pytest.raises(InputError, match=r"flip=1.5 is no probability"):
        RandomShortSideCrop(64, [64, 70], 1.5)
    with pytest.raises(InputError, match=r"set test_short_side"):
        Crops(64, 60, 1)
    with pytest.raises(InputError, match=r"crops=2; use 1"):
        Crops(64, 64, 2)
