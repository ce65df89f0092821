"""LayerNorm against torch.nn.functional.layer_norm."""

from __future__ import annotations

import torch
from torch.nn import functional

from videogn.norm.layer_norm import LayerNorm


def test_equals_torchs_layer_norm_of_the_whole_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = LayerNorm(6, eps=1e-3)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(6, generator=generator))
        layer.bias.copy_(torch.randn(6, generator=generator))
    x = (torch.randn(2, 6, 3, 4, 5, generator=generator) * 2 + 7).requires_grad_()
    upstream = torch.randn(2, 6, 3, 4, 5, generator=generator)

    per_channel = (-1, 1, 1, 1)
    weight, bias = (p.detach().view(per_channel).expand(6, 3, 4, 5) for p in (layer.weight, layer.bias))
    expected = functional.layer_norm(x, (6, 3, 4, 5), weight, bias, 1e-3)
    for training in (True, False):
        y = layer.train(training)(x)
        # Two kernels, each off by roundings of x - mean (values up to ~15) times gamma (up to ~2.5).
        torch.testing.assert_close(y, expected, atol=4 * 15 * 2.5 * torch.finfo(torch.float32).eps, rtol=0)
    (ours,) = torch.autograd.grad(y, x, upstream)
    (theirs,) = torch.autograd.grad(expected, x, upstream)
    # The same, and means over 360 values: the square root of their number in roundings of values up to ~4.
    torch.testing.assert_close(ours, theirs, atol=(4 * 15 * 2.5 + 19 * 4) * torch.finfo(torch.float32).eps, rtol=0)
    assert repr(layer).startswith("LayerNorm(G=1, C=6")
