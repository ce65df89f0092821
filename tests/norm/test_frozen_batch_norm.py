"""FrozenBatchNorm against torch.nn.BatchNorm3d in evaluation, and its refusal to learn."""

from __future__ import annotations

import torch
from torch import nn

from videogn.norm.frozen_batch_norm import FrozenBatchNorm


def trained() -> nn.BatchNorm3d:
    """A BatchNorm that has seen data."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.BatchNorm3d(5, eps=1e-3)
    nn.init.normal_(layer.weight, generator=generator)
    nn.init.normal_(layer.bias, generator=generator)
    layer(torch.randn(4, 5, 2, 4, 4, generator=generator) * 3 + 2)
    return layer


def test_is_torchs_batch_norm_in_evaluation_and_stays_so() -> None:
    theirs = trained().eval()
    ours = FrozenBatchNorm(5, eps=1e-3)
    ours.load_state_dict(theirs.state_dict())
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    x = (torch.randn(2, 5, 2, 4, 4, generator=torch.Generator().manual_seed(1)) + 2).requires_grad_()
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    expected = theirs(x)
    (expected_gradient,) = torch.autograd.grad(expected, x, upstream)
    for training in (True, False):
        y = ours.train(training)(x)
        (gradient,) = torch.autograd.grad(y, x, upstream)
        # x * scale + shift rounds where torch takes x - mean first: four roundings of values up to ~8, scales up to ~3.
        torch.testing.assert_close(y, expected, atol=4 * 8 * 3 * torch.finfo(torch.float32).eps, rtol=0)
        torch.testing.assert_close(gradient, expected_gradient, atol=4 * 8 * torch.finfo(torch.float32).eps, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
    assert list(ours.parameters()) == []


def test_torchs_tools_do_not_thaw_it() -> None:
    """update_bn and the SyncBatchNorm conversion go by torch's class."""
    layer = FrozenBatchNorm(5, "relu")
    torch.optim.swa_utils.update_bn([torch.randn(4, 5, 2, 3, 3) + 9], layer)
    assert not layer.running_mean.any()
    assert nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(layer))[0] is layer


def test_state_keys_are_those_of_torch_but_the_count() -> None:
    ours, theirs = FrozenBatchNorm(5), trained()
    assert set(theirs.state_dict()) - set(ours.state_dict()) == {"num_batches_tracked"}
    theirs.load_state_dict(ours.state_dict(), strict=False)
    assert bool((theirs.weight == 1).all())
