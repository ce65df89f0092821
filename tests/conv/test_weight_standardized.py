"""WeightStandardizedConv3d against torch's convolution with weights standardized in fp64, one output channel at a time."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from videogn.conv.weight_standardized import WeightStandardizedConv3d
from videogn.types import InputError


@pytest.mark.parametrize("groups", [1, 2])
def test_convolves_with_standardized_weights(groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = WeightStandardizedConv3d(4, 6, (3, 1, 3), stride=(1, 2, 1), padding=(1, 0, 1), groups=groups, bias=True)
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator) / 4 + 9)  # far from the deviation
    x = torch.randn(2, 4, 3, 5, 5, generator=generator, requires_grad=True)

    weight = conv.weight.detach().double().requires_grad_()
    rows = [(row - row.mean()) / (row.var(correction=0) + 1e-6).sqrt() for row in weight]
    bias = conv.bias.detach().double() if conv.bias is not None else None
    expected = functional.conv3d(x.double(), torch.stack(rows), bias, (1, 2, 1), (1, 0, 1), groups=groups)
    y = conv(x)
    # w - mean rounds by eps * 10, divided by a deviation of 1/4; 36 products with x up to ~4.
    atol = 4 * 10 * 4 * 36 * 4 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(y.double(), expected, atol=atol, rtol=0)

    upstream = torch.randn(y.shape, generator=generator)
    gradients = torch.autograd.grad(y, [x, conv.weight], upstream)
    others = torch.autograd.grad(expected, [x, weight], upstream.double())
    for one, other in zip(gradients, others, strict=True):
        # A weight's gradient sums up to 90 products, and passes the deviation of 1/4 once more.
        torch.testing.assert_close(one.double(), other.double(), atol=10 * 4 * atol, rtol=0)


def test_the_scale_of_the_weights_has_no_effect() -> None:
    conv = WeightStandardizedConv3d(3, 4, 3)
    x = torch.randn(1, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    before = conv(x)
    with torch.no_grad():
        conv.weight *= 100
    # eps = 1e-6 beside a variance of ~1/243: 1.2e-4 of the result before, nothing after.
    torch.testing.assert_close(conv(x), before, atol=0, rtol=3e-4)


def test_one_weight_an_output_channel_is_refused() -> None:
    with pytest.raises(InputError, match=r"in_channels=8 kernel_size=1 groups=8 is one weight .* use conv=plain"):
        WeightStandardizedConv3d(8, 8, 1, groups=8)
