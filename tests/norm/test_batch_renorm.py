"""BatchRenorm against the equations of its paper in fp64, and against BatchNorm where the two agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from videogn.norm.batch_renorm import BatchRenorm
from videogn.types import InputError


def draw(seed: int, scale: float = 2.0, shift: float = 3.0) -> Tensor:
    return torch.randn(3, 4, 2, 5, 5, generator=torch.Generator().manual_seed(seed)) * scale + shift


def from_the_start(**settings: float) -> BatchRenorm:
    """With its full limits from the first batch on."""
    layer = BatchRenorm(4, warmup_steps=0, r_max_steps=0, d_max_steps=0, **settings)  # type: ignore[arg-type]
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(8))
    nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(9))
    return layer


def definition(layer: BatchRenorm, x: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
    """Algorithm 1 of the paper, channel by channel, in fp64; r and d are constants to the gradient."""
    channels = []
    for c in range(x.shape[1]):
        values = x[:, c]
        variance, mean = torch.var_mean(values, correction=0)
        std, running_std = (variance + layer.eps).sqrt(), (running_var[c] + layer.eps).sqrt()
        r = (std / running_std).clamp(1 / layer.r_max, layer.r_max).detach()
        d = ((mean - running_mean[c]) / running_std).clamp(-layer.d_max, layer.d_max).detach()
        channels.append(((values - mean) / std * r + d) * layer.weight[c].double() + layer.bias[c].double())
    return torch.stack(channels, 1)


@pytest.mark.parametrize("scale", [1.1, 4.0, 0.3], ids=["inside_the_limits", "above", "below"])
def test_matches_the_paper(scale: float) -> None:
    layer = from_the_start()
    x = draw(0, scale, 0.1).requires_grad_()
    upstream = draw(1, 1, 0)
    mean, var = layer.running_mean.clone(), layer.running_var.clone()
    y = layer(x)
    expected = definition(layer, x.double(), mean.double(), var.double())
    # Roundings of values up to ~10 by factors (r, gamma) up to ~4.
    atol = 4 * 10 * 4 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(y.double(), expected, atol=atol, rtol=0)
    gradients = torch.autograd.grad(y, [x, layer.weight, layer.bias], upstream)
    others = torch.autograd.grad(expected, [x, layer.weight, layer.bias], upstream.double())
    for one, other in zip(gradients, others, strict=True):
        # Sums of 150 terms: the square root of their number in the same roundings.
        torch.testing.assert_close(one.double(), other.double(), atol=12 * atol, rtol=0)
    std = x.detach().double().std((0, 2, 3, 4), correction=0)
    assert bool((std > layer.r_max).all()) is (scale == 4.0)
    assert bool((std < 1 / layer.r_max).all()) is (scale == 0.3)
    # And the averages, of the biased variance.
    batch_var, batch_mean = torch.var_mean(x.detach().double(), (0, 2, 3, 4), correction=0)
    torch.testing.assert_close(layer.running_mean.double(), 0.1 * batch_mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(layer.running_var.double(), 0.9 + 0.1 * batch_var, atol=1e-5, rtol=0)


def test_inside_the_limits_training_is_evaluation() -> None:
    """What the paper is for: the running statistics normalize in training too."""
    layer = from_the_start(r_max=100.0, d_max=100.0)
    for seed in range(3):
        layer(draw(seed))
    frozen = BatchRenorm(4)
    frozen.load_state_dict(layer.state_dict())
    x = draw(7)
    # Values up to ~10, through two factors up to ~4.
    torch.testing.assert_close(layer.train()(x), frozen.eval()(x), atol=4 * 10 * 4 * torch.finfo(torch.float32).eps, rtol=0)


def test_starts_as_batch_norm() -> None:
    layer, plain = BatchRenorm(4), nn.BatchNorm3d(4)
    for seed in range(3):
        assert torch.equal(layer(draw(seed)), plain(draw(seed)))
    assert layer.num_batches_tracked.item() == 3


def test_limits_grow_linearly_after_the_warm_up() -> None:
    layer = BatchRenorm(4, r_max=3.0, d_max=5.0, warmup_steps=100, r_max_steps=300, d_max_steps=200)
    expected = {0: (1, 0), 100: (1, 0), 150: (1.5, 2.5), 200: (2, 5), 300: (3, 5), 9999: (3, 5)}
    for steps, limits in expected.items():
        layer.num_batches_tracked.fill_(steps)
        assert tuple(limit.item() for limit in layer.limits()) == limits


def test_torchs_update_bn_gives_the_plain_mean_of_the_batches() -> None:
    layer = BatchRenorm(4)
    batches = [draw(seed) + seed for seed in range(3)]
    torch.optim.swa_utils.update_bn(batches, layer)
    means = torch.stack([batch.mean((0, 2, 3, 4)) for batch in batches]).mean(0)
    torch.testing.assert_close(layer.running_mean, means, atol=18 * 10 * torch.finfo(torch.float32).eps, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r_max": 0.5}, r"r_max=0\.5 d_max=0\.5; r_max is at least 1"),
        ({"d_max": -1.0}, r"d_max=-1"),
        ({"warmup_steps": 9, "r_max_steps": 8}, r"warmup_steps=9 r_max_steps=8"),
    ],
)
def test_refuses(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BatchRenorm(4, **settings)  # type: ignore[arg-type]
