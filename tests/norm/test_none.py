"""NoNorm is the tail alone."""

from __future__ import annotations

import torch

from videogn.norm.none import NoNorm


def test_adds_and_activates_and_nothing_else() -> None:
    x, residual, upstream = (torch.randn(2, 3, 2, 2, 2, generator=torch.Generator().manual_seed(s)) for s in (0, 1, 2))
    x.requires_grad_()
    layer = NoNorm(3, "relu")
    for training in (True, False):
        y = layer.train(training)(x, residual)
        assert torch.equal(y, (x + residual).clamp(min=0))
        (dx,) = torch.autograd.grad(y, x, upstream)
        assert torch.equal(dx, upstream * (x + residual > 0))
    assert layer.state_dict() == {}
    assert NoNorm(3)(x) is x
