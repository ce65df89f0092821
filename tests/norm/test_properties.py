"""What must hold for every input: properties, on inputs that hypothesis draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from videogn.kernel.group_norm import divisors, group_norm
from videogn.norm.batch_norm import BatchNorm
from videogn.norm.group_norm import GroupNorm

EPS = torch.finfo(torch.float32).eps
SIZES = st.integers(1, 4)
few = settings(deadline=None, max_examples=40)


@st.composite
def layers(draw: st.DrawFn) -> GroupNorm:
    """A GroupNorm with any divisor as G, and learnt gamma and beta."""
    channels = draw(st.integers(1, 12))
    layer = GroupNorm(
        channels, draw(st.sampled_from([None, "relu", "silu"])), num_groups=draw(st.sampled_from(divisors(channels)))
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    nn.init.normal_(layer.weight, generator=generator)
    nn.init.normal_(layer.bias, generator=generator)
    return layer


@st.composite
def clips(draw: st.DrawFn, layer: GroupNorm, num_clips: Any = SIZES) -> Tensor:
    """(N, C, T, H, W) of any mean and spread, in either memory format."""
    shape = (draw(num_clips), layer.channels, draw(SIZES), draw(SIZES), draw(SIZES))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    x = x * draw(st.sampled_from([1e-2, 1.0, 1e2])) + draw(st.sampled_from([0.0, -3.0, 50.0]))
    return x.contiguous(memory_format=draw(st.sampled_from([torch.contiguous_format, torch.channels_last_3d])))


@st.composite
def cases(draw: st.DrawFn, num_clips: Any = SIZES) -> tuple[GroupNorm, Tensor]:
    layer = draw(layers())
    return layer, draw(clips(layer, num_clips))


def tolerance(layer: GroupNorm, x: Tensor) -> float:
    """What rounding moves y by: a mean of x is off by some eps |x|, which rstd and gamma scale, and y itself by some eps |y|."""
    weight, bias = (parameter.detach().abs().max() for parameter in (layer.weight, layer.bias))
    groups = x.double().reshape(len(x), layer.num_groups, -1)
    rstd = (groups.var(-1, correction=0) + layer.eps).rsqrt().max()
    size = x.double().abs().max() * rstd + (groups - groups.mean(-1, keepdim=True)).abs().max() * rstd
    return float(16 * EPS * (size * weight + bias) + 16 * EPS)


@pytest.mark.parametrize("backend", ["triton", "aten", "reference"])
@few
@given(case=cases(num_clips=st.integers(2, 5)), data=st.data())
def test_a_clip_never_sees_its_batch(backend: Any, case: tuple[GroupNorm, Tensor], data: st.DataObject) -> None:
    """To rounding, since all of this is torch's arithmetic on a CPU; tests/kernel/test_triton.py has our kernels, bitwise."""
    layer, x = case
    place = data.draw(st.integers(0, len(x) - 1))
    arguments = (layer.weight, layer.bias, layer.num_groups, layer.eps, None, layer.activation, backend)
    together, alone = group_norm(x, *arguments)[place], group_norm(x[place : place + 1], *arguments)[0]
    torch.testing.assert_close(alone, together, atol=tolerance(layer, x), rtol=0)


def test_batch_norm_does_see_it() -> None:
    x = torch.randn(4, 8, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    alone, together = BatchNorm(8)(x[:1]), BatchNorm(8)(x)[:1]
    # Far beyond rounding: the means of 18 values differ by some 1 / sqrt(18) of their spread.
    assert (alone - together).abs().max() > 0.1


@few
@given(case=cases(), scale=st.floats(0.5, 20), shift=st.floats(-20, 20))
def test_scale_and_shift_of_a_group_do_not_matter(case: tuple[GroupNorm, Tensor], scale: float, shift: float) -> None:
    """Up to eps, which is left out here; in fp64, since a shift costs digits. One group alone is changed."""
    layer, x = case
    assume(x[0].numel() > layer.num_groups)  # a group of one value has no variance
    layer = layer.double()
    layer.eps = 0.0
    x = torch.cat([x.double(), torch.randn(1, *x.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))])
    x = x + torch.linspace(0, 1, x[0].numel(), dtype=x.dtype).reshape(x[0].shape)  # no group is constant
    factor, offset = torch.ones(layer.num_groups, dtype=x.dtype), torch.zeros(layer.num_groups, dtype=x.dtype)
    factor[0], offset[0] = scale, shift
    per_channel = (1, -1, 1, 1, 1)
    repeats = layer.channels // layer.num_groups
    changed = x * factor.repeat_interleave(repeats).reshape(per_channel) + offset.repeat_interleave(repeats).reshape(per_channel)
    # x is up to 100 times its spread or less, and y up to sqrt(values a group) = 28; some 1e4 roundings of fp64.
    torch.testing.assert_close(layer(changed), layer(x), atol=1e-9, rtol=1e-9)


@few
@given(case=cases())
def test_training_mode_is_inference_mode(case: tuple[GroupNorm, Tensor]) -> None:
    layer, x = case
    assert torch.equal(layer.train()(x), layer.eval()(x))


@few
@given(case=cases())
def test_one_frame_is_an_image(case: tuple[GroupNorm, Tensor]) -> None:
    """With T = 1 it is torch's 2D GroupNorm of the same weights, through the state dict."""
    layer, x = case
    frame = x[:, :, :1]
    assume(len(frame) * frame[0, 0].numel() > 1)  # torch's layer refuses one value a channel
    theirs = nn.GroupNorm(layer.num_groups, layer.channels, eps=layer.eps)
    theirs.load_state_dict(layer.state_dict())
    image = theirs(frame.squeeze(2).contiguous())
    tail: Callable[[Tensor], Tensor] = {None: nn.Identity(), "relu": nn.ReLU(), "silu": nn.SiLU()}[layer.activation]
    torch.testing.assert_close(layer(frame).squeeze(2), tail(image), atol=tolerance(layer, frame), rtol=0)


@few
@given(case=cases(), data=st.data())
def test_the_order_of_frames_is_kept(case: tuple[GroupNorm, Tensor], data: st.DataObject) -> None:
    layer, x = case
    order = data.draw(st.permutations(range(x.shape[2])))
    torch.testing.assert_close(layer(x[:, :, order]), layer(x)[:, :, order], atol=tolerance(layer, x), rtol=0)


@few
@given(layer=layers())
def test_weights_go_to_torch_and_back(layer: GroupNorm) -> None:
    theirs = nn.GroupNorm(layer.num_groups, layer.channels)
    theirs.load_state_dict(layer.state_dict())
    back = GroupNorm(layer.channels, num_groups=layer.num_groups)
    back.load_state_dict(theirs.state_dict())
    assert list(back.state_dict()) == list(theirs.state_dict()) == ["weight", "bias"]
    assert all(torch.equal(value, layer.state_dict()[name]) for name, value in back.state_dict().items())
