"""The contract of the room, for every conf/norm/*.yaml."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap

import pytest
import torch
from torch import nn
from torch.nn import functional

from videogn.norm.norm import Norm
from videogn.types import InputError

Build = Callable[..., Norm]
ACTIVATIONS = {None: lambda y: y, "relu": functional.relu, "silu": functional.silu}


def clip(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 64, 2, 3, 3, generator=torch.Generator().manual_seed(seed)) + 1


def disturb(layer: Norm) -> Norm:
    """gamma and beta away from 1 and 0, where a mistake would hide."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) / 4
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_residual", [True, False])
def test_tail_equals_unfused(norm: Build, with_residual: bool, activation: str | None, training: bool) -> None:
    layer = disturb(norm(64, activation=activation)).train(training)
    bare = norm(64).train(training)
    bare.load_state_dict(layer.state_dict())
    residual = clip(1) if with_residual else None
    expected = bare(clip())
    if residual is not None:
        expected = expected + residual
    expected = ACTIVATIONS[activation](expected)
    # The same operations in the same order; one rounding of values up to ~8 if a fused layer contracts them.
    torch.testing.assert_close(layer(clip(), residual), expected, atol=8 * torch.finfo(torch.float32).eps, rtol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_keeps_shape_dtype_and_memory_format(norm: Build, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    x = clip().to(dtype).to(memory_format=memory_format)
    before = x.clone()
    y = norm(64, activation="relu")(x, x)
    assert y.shape == x.shape
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=memory_format)
    assert torch.equal(x, before)


def test_zero_init_wants_a_gamma_that_is_learnt(norm: Build) -> None:
    """Otherwise the branch would stay at 0."""
    if [parameter for parameter in norm(64).parameters() if parameter.requires_grad]:
        assert norm(64, zero_init=True).zero_init
    else:
        with pytest.raises(InputError, match=r"zero_init=True; .*: set model\.zero_init=false"):
            norm(64, zero_init=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_zero_init_starts_as_the_residual(norm: Build, activation: str | None) -> None:
    try:
        layer = norm(64, activation=activation, zero_init=True)
    except InputError:
        pytest.skip("refuses zero_init")
    assert not layer.weight.any()
    assert torch.equal(layer(clip(), clip(1)), ACTIVATIONS[activation](clip(1)))
    with torch.no_grad():
        layer.weight.fill_(3)
    layer.reset_parameters()
    assert not layer.weight.any()
    assert bool((norm(64).weight == 1).all())


def test_answers_its_no_decay_parameters(norm: Build) -> None:
    layer = norm(64)
    assert {id(p) for p in layer.no_decay_parameters()} == {id(p) for p in layer.parameters()}
    assert [name for name, _ in layer.named_parameters()] in (["weight", "bias"], [])


def test_repr_names_the_channels(norm: Build) -> None:
    text = repr(norm(64, activation="relu"))
    assert "C=64" in text
    assert "activation=relu" in text
    try:
        assert "zero_init" in repr(norm(64, zero_init=True))
    except InputError:
        assert "zero_init" not in text


def test_errors_name_the_remedy(norm: Build) -> None:
    with pytest.raises(InputError, match=r"channels=0; a norm needs at least 1"):
        norm(0)
    construct = unwrap(Norm.__init__)  # below the hook, which refuses another activation first
    with pytest.raises(InputError, match=r"Norm: activation='gelu'; use None, 'relu' or 'silu'"):
        construct(Norm.__new__(Norm), 64, activation="gelu")


class Doubled(Norm):
    """The least a norm of one's own must write; it returns its input where it is a view of it."""

    def __init__(self, channels: int, activation: str | None = None, zero_init: bool = False) -> None:
        super().__init__(channels, activation, zero_init)  # type: ignore[arg-type]
        self.weight = nn.Parameter(torch.ones(channels))

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_subclass_writes_only_normalize() -> None:
    x = clip()
    before = x.clone()
    layer = Doubled(64, "relu")
    assert torch.equal(layer(x, clip(1)), functional.relu(x + clip(1)))
    assert torch.equal(layer(x), functional.relu(x))
    assert torch.equal(x, before)  # the tail must not write into what `normalize` returned
    assert layer.no_decay_parameters() == [layer.weight]
