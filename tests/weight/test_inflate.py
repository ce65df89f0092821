"""Inflated kernels against the 2D convolution that they came from."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from videogn.weight.inflate import Inflation, inflate


@pytest.mark.parametrize("inflation", ["repeat", "center"])
@pytest.mark.parametrize("length", [1, 3, 5, 7])
def test_a_static_clip_gives_the_result_of_the_frame(length: int, inflation: Inflation) -> None:
    generator = torch.Generator().manual_seed(length)
    weight = torch.randn(6, 4, 3, 5, generator=generator)  # not square: H and W must not change places
    frame = torch.randn(2, 4, 9, 11, generator=generator)
    expected = functional.conv2d(frame, weight)
    found = functional.conv3d(frame.unsqueeze(2).repeat(1, 1, length + 2, 1, 1), inflate(weight, length, inflation))
    # 60 products a frame, each rounded by eps / 2, as is w / length; four times that for the sums.
    atol = 4 * torch.finfo(torch.float32).eps * 60**0.5 * weight.abs().max().item() * frame.abs().max().item()
    assert found.shape[2] == 3
    torch.testing.assert_close(found, expected.unsqueeze(2).expand_as(found), atol=atol, rtol=0)


def test_center_looks_at_the_middle_frame_alone() -> None:
    """On a clip whose frames differ; repeat gives their mean."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 3, 3, 3, generator=generator, dtype=torch.float64)
    clip = torch.randn(1, 3, 5, 3, 3, generator=generator, dtype=torch.float64)
    of_frames = torch.stack([functional.conv2d(clip[:, :, t], weight) for t in range(5)], 2)
    # float64: 27 or 135 products, each to 1.1e-16 of some 10.
    found = functional.conv3d(clip, inflate(weight, 5, "center"))
    torch.testing.assert_close(found, of_frames[:, :, 2:3], atol=1e-13, rtol=0)
    found = functional.conv3d(clip, inflate(weight, 5, "repeat"))
    torch.testing.assert_close(found, of_frames.mean(2, keepdim=True), atol=1e-13, rtol=0)


def test_it_does_not_share_memory_with_the_kernel() -> None:
    weight = torch.ones(1, 1, 1, 1)
    for inflation in ("repeat", "center"):
        inflate(weight, 1, inflation).zero_()
    assert weight.item() == 1
