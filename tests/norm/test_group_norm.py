"""GroupNorm against torch.nn.GroupNorm, and what the paper promises of it."""

from __future__ import annotations

from inspect import unwrap

import pytest
import torch
from torch import nn

from videogn.norm.group_norm import GroupNorm
from videogn.types import InputError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_exchanges_weights_with_torch_and_agrees() -> None:
    theirs = nn.GroupNorm(8, 32, eps=1e-3)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    ours = GroupNorm(32, num_groups=8, eps=1e-3)
    ours.load_state_dict(theirs.state_dict())
    nn.GroupNorm(8, 32).load_state_dict(ours.state_dict())
    assert isinstance(ours, nn.GroupNorm)

    inputs = [(draw(2, 32, 3, 4, 4) + 5).requires_grad_() for _ in range(2)]
    outputs = [layer(x) for layer, x in zip((ours, theirs), inputs, strict=True)]
    for y in outputs:
        y.backward(draw(2, 32, 3, 4, 4, seed=1))
    # The same kernel of torch: no rounding apart.
    torch.testing.assert_close(outputs[0], outputs[1], atol=0, rtol=0)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, atol=0, rtol=0)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, atol=0, rtol=0)


def test_training_is_inference_and_the_batch_is_unseen() -> None:
    layer = GroupNorm(32, "relu", num_groups=8)
    x = draw(4, 32, 3, 4, 4)
    y = layer(x)
    assert torch.equal(layer.eval()(x), y)
    assert torch.equal(layer(x[2:3]), y[2:3])
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_moments_of_each_group() -> None:
    y = GroupNorm(32, num_groups=8)(7 * draw(2, 32, 3, 4, 4) + 100).unflatten(1, (8, 4)).flatten(2)
    # 192 values of size ~3: their mean is off by a rounding of x / std, 100 / 7; the variance by eps / 49 besides.
    atol = 8 * torch.finfo(torch.float32).eps * 100 / 7
    torch.testing.assert_close(y.mean(-1), torch.zeros(2, 8), atol=atol, rtol=0)
    torch.testing.assert_close(y.var(-1, correction=0), torch.ones(2, 8), atol=atol, rtol=0)


@pytest.mark.parametrize(("channels", "taken"), [(24, 24), (48, 24), (80, 40), (100, 25), (54, 27), (17, 17), (64, 32)])
def test_nearest_divisor_is_taken_openly(channels: int, taken: int) -> None:
    if taken == 32:  # nothing to warn of: warnings are errors here
        layer = GroupNorm(channels, on_indivisible="nearest")
    else:
        with pytest.warns(
            UserWarning, match=rf"num_groups=32 does not divide channels={channels}; .* {taken} groups of {channels // taken}$"
        ):
            layer = GroupNorm(channels, on_indivisible="nearest")
    assert f"G={taken}, C={channels}" in repr(layer)
    assert layer(draw(2, channels, 2, 2, 2)).shape == (2, channels, 2, 2, 2)


def test_of_two_equally_near_divisors() -> None:
    """More values a group: fewer groups, or more channels in each."""
    with pytest.warns(UserWarning, match="num_groups=5 .* nearest divisor, 4: 4 groups of 6"):
        assert GroupNorm(24, num_groups=5, on_indivisible="nearest").num_groups == 4
    with pytest.warns(UserWarning, match="channels_per_group=5 .* nearest divisor, 6: 4 groups of 6"):
        assert GroupNorm(24, channels_per_group=5, on_indivisible="nearest").num_groups == 4


def test_by_channels_per_group() -> None:
    """The paper's other table: the same C/G in every layer, so that G grows with C."""
    assert [GroupNorm(channels, channels_per_group=16).num_groups for channels in (64, 256, 2048)] == [4, 16, 128]
    x = draw(2, 64, 3, 4, 4)
    assert torch.equal(GroupNorm(64, channels_per_group=16)(x), GroupNorm(64, num_groups=4)(x))
    assert GroupNorm(64).num_groups == 32


def test_another_rule_for_indivisible_is_an_error() -> None:
    construct = unwrap(GroupNorm.__init__)  # below the hook, which refuses it first
    with pytest.raises(InputError, match="on_indivisible='floor'; use 'error' or 'nearest'"):
        construct(GroupNorm.__new__(GroupNorm), 64, on_indivisible="floor")


@pytest.mark.parametrize("name", ["num_groups", "channels_per_group"])
@pytest.mark.parametrize(("number", "rule"), [(7, "error"), (0, "error"), (0, "nearest"), (-8, "nearest")])
def test_indivisible_is_an_error_that_lists_what_fits(name: str, number: int, rule: str) -> None:
    with pytest.raises(InputError) as error:
        GroupNorm(64, **{name: number}, on_indivisible=rule)
    expected = f"GroupNorm: {name}={number} does not divide channels=64; use one of 1, 2, 4, 8, 16, 32, 64"
    remedy = "; or norm.on_indivisible=nearest, which takes the nearest one at every width" if number == 7 else ""
    assert str(error.value) == expected + remedy


def test_both_numbers_are_an_error() -> None:
    with pytest.raises(InputError, match="num_groups=8 and channels_per_group=8; give one, and null for the other"):
        GroupNorm(64, num_groups=8, channels_per_group=8)
