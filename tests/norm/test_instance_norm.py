"""InstanceNorm against torch.nn.InstanceNorm3d."""

from __future__ import annotations

import torch
from torch import nn

from videogn.norm.instance_norm import InstanceNorm


def test_equals_torchs_and_exchanges_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    theirs = nn.InstanceNorm3d(5, eps=1e-3, affine=True)
    nn.init.normal_(theirs.weight, generator=generator)
    nn.init.normal_(theirs.bias, generator=generator)
    ours = InstanceNorm(5, eps=1e-3)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = (torch.randn(2, 5, 3, 4, 5, generator=generator) * 2 + 7).requires_grad_()
    upstream = torch.randn(2, 5, 3, 4, 5, generator=generator)
    for training in (True, False):
        y, expected = ours.train(training)(x), theirs.train(training)(x)
        # Two kernels, each off by roundings of x - mean (values up to ~15) times gamma (up to ~2.5).
        torch.testing.assert_close(y, expected, atol=4 * 15 * 2.5 * torch.finfo(torch.float32).eps, rtol=0)
        gradients = torch.autograd.grad(y, [x, ours.weight, ours.bias], upstream)
        others = torch.autograd.grad(expected, [x, theirs.weight, theirs.bias], upstream)
        for one, other in zip(gradients, others, strict=True):
            # And sums of 120 terms of up to ~10: the square root of their number in roundings.
            torch.testing.assert_close(one, other, atol=(4 * 15 * 2.5 + 11 * 10) * torch.finfo(torch.float32).eps, rtol=0)


def test_one_value_a_channel_becomes_beta() -> None:
    layer = InstanceNorm(4)
    nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 4, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    # x * rstd - mean * rstd rounds twice, and rstd is eps ** -0.5 = 316.
    atol = 2 * 316 * x.abs().max().item() * torch.finfo(torch.float32).eps
    torch.testing.assert_close(layer(x).flatten(1), layer.bias.expand(2, 4), atol=atol, rtol=0)
