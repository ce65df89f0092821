"""BatchNorm against torch.nn.BatchNorm3d, and torch's tools on it."""

from __future__ import annotations

import torch
from torch import nn

from videogn.norm.batch_norm import BatchNorm


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_exchanges_weights_with_torch_and_agrees_in_both_modes() -> None:
    theirs = nn.BatchNorm3d(6, eps=1e-3, momentum=0.3)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    ours = BatchNorm(6, eps=1e-3, momentum=0.3)
    ours.load_state_dict(theirs.state_dict())
    x = draw(3, 6, 2, 4, 4) * 2 + 5
    # The same kernel of torch: no rounding apart, in the running statistics either.
    for training in (True, False):
        assert torch.equal(ours.train(training)(x), theirs.train(training)(x))
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    theirs.load_state_dict(ours.state_dict())


def test_momentum_none_averages_all_batches() -> None:
    layer = BatchNorm(4, momentum=None)
    batches = [draw(2, 4, 2, 3, 3, seed=seed) + seed for seed in range(3)]
    for batch in batches:
        layer(batch)
    expected = torch.stack([batch.mean(dim=(0, 2, 3, 4)) for batch in batches]).mean(0)
    # Means of values up to ~6, three roundings each.
    torch.testing.assert_close(layer.running_mean, expected, atol=18 * torch.finfo(torch.float32).eps, rtol=0)


def test_update_bn_recognises_it() -> None:
    layer = BatchNorm(4, "relu", momentum=0.1)
    batch = draw(8, 4, 2, 3, 3) + 3
    torch.optim.swa_utils.update_bn([batch], layer)
    torch.testing.assert_close(layer.running_mean, batch.mean(dim=(0, 2, 3, 4)), atol=18 * torch.finfo(torch.float32).eps, rtol=0)


def test_folds_into_a_convolution() -> None:
    conv, layer = nn.Conv3d(3, 4, 3, bias=False), BatchNorm(4)
    nn.init.normal_(layer.weight)
    layer(draw(2, 4, 3, 3, 3) * 2 + 1)
    x = draw(2, 3, 5, 5, 5)
    folded = torch.nn.utils.fuse_conv_bn_eval(conv.eval(), layer.eval())
    # Scaling 81 products before or after their sum: 81 roundings at the most of terms whose sum is ~4.
    torch.testing.assert_close(folded(x), layer(conv(x)), atol=81 * torch.finfo(torch.float32).eps, rtol=0)


def test_reset_forgets_the_running_statistics() -> None:
    layer = BatchNorm(4, zero_init=True)
    layer(draw(2, 4, 2, 3, 3) + 3)
    layer.reset_parameters()
    assert not layer.running_mean.any()
    assert bool((layer.running_var == 1).all())
    assert not layer.weight.any()
