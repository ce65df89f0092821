"""Every backend of the group norm kernel against a definition in fp64 written here."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from videogn.kernel.group_norm import BACKENDS, aten, group_norm
from videogn.types import InputError

EPS = 1e-5
SHAPES = {
    "clip": ((2, 12, 3, 5, 7), 4),
    "layer_norm": ((2, 6, 2, 3, 3), 1),
    "instance_norm": ((3, 5, 2, 3, 3), 5),
    "one_position": ((2, 8, 1, 1, 1), 4),
    "image": ((2, 6, 5, 3), 3),
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last_3d}


def definition(
    x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, residual: Tensor | None, activation: str | None
) -> Tensor:
    """Looped over clips and groups in fp64, so that it shares no code and no reshaping with the backends."""
    x = x.double()
    clips = []
    for clip in x:
        groups = []
        for group in clip.chunk(num_groups):
            variance, mean = torch.var_mean(group, correction=0)
            groups.append((group - mean) / (variance + EPS).sqrt())
        clips.append(torch.cat(groups))
    per_channel = (-1,) + (1,) * (x.ndim - 2)
    y = torch.stack(clips) * weight.double().view(per_channel) + bias.double().view(per_channel)
    if residual is not None:
        y = y + residual.double()
    if activation == "relu":
        y = y.clamp(min=0)
    elif activation == "silu":
        y = y / (1 + torch.exp(-y))
    return y


def draw(shape: tuple[int, ...], mean: float = 0.0, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + mean


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mean", [0.0, 1e3, 1e4], ids=["centered", "far", "very_far"])
@pytest.mark.parametrize(("with_residual", "activation"), [(False, None), (False, "relu"), (True, "relu"), (True, "silu")])
@pytest.mark.parametrize("backend", BACKENDS)
def test_matches_definition(backend: str, with_residual: bool, activation: str | None, mean: float, layout: str) -> None:
    (shape, num_groups), memory_format = SHAPES["clip"], LAYOUTS[layout]
    x = draw(shape, mean).to(memory_format=memory_format).requires_grad_()
    weight, bias = draw(shape[1:2], 1, seed=1).requires_grad_(), draw(shape[1:2], seed=2).requires_grad_()
    residual = draw(shape, seed=3).to(memory_format=memory_format).requires_grad_() if with_residual else None
    inputs = [tensor for tensor in (x, weight, bias, residual) if tensor is not None]

    # fp32 rounds x - mean by up to eps * |x|, times rstd (1 here) and gamma; the same share again for the other
    # roundings, of values of size ~4. Allow four of those. SiLU's slope is at most 1.1, ReLU's 1.
    atol = 4 * torch.finfo(torch.float32).eps * (x.abs().max().item() + 4) * weight.abs().max().item()
    y = group_norm(x, weight, bias, num_groups, EPS, residual, activation, backend)  # type: ignore[arg-type]
    expected = definition(x, weight, bias, num_groups, residual, activation)
    torch.testing.assert_close(y.double(), expected, atol=atol, rtol=0)

    upstream = draw(shape, seed=4)  # not ones: through a norm their gradient vanishes
    # Beside ReLU's corner a rounding may flip the mask, and the gradient by all of `upstream`: look elsewhere.
    upstream[definition(x, weight, bias, num_groups, residual, None).abs() <= atol] = 0
    gradients = torch.autograd.grad(y, inputs, upstream)
    expected_gradients = torch.autograd.grad(expected, inputs, upstream.double())
    # A gradient sums products, each off by up to atol * |upstream|, over a group or over all of a channel; independent
    # roundings add up as the square root of their number.
    terms = max(x[0].numel() // num_groups, x.numel() // shape[1])
    atol *= upstream.abs().max().item() * terms**0.5
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient.to(gradient.dtype), atol=atol, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_shape_matches_torch(backend: str, shape: str) -> None:
    size, num_groups = SHAPES[shape]
    x, weight, bias = draw(size), draw(size[1:2], seed=1), draw(size[1:2], seed=2)
    expected = torch.nn.functional.group_norm(x, num_groups, weight, bias, EPS)
    # Eight roundings of values up to ~8: var of two values may be small, so x * rstd - mean * rstd cancels.
    torch.testing.assert_close(group_norm(x, weight, bias, num_groups, EPS, None, None, backend), expected, atol=1e-5, rtol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", [None, "relu", "silu"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend: str, layout: str, activation: str | None) -> None:
    shape = (2, 4, 2, 3, 2)
    x, residual = (draw(shape, seed=seed).double().to(memory_format=LAYOUTS[layout]).requires_grad_() for seed in (0, 1))
    weight, bias = draw((4,), 1, seed=2).double().requires_grad_(), draw((4,), seed=3).double().requires_grad_()

    def kernel(*inputs: Tensor) -> Tensor:
        return group_norm(*inputs[:3], 2, EPS, inputs[3], activation, backend)  # type: ignore[arg-type]

    # Its tolerances (1e-6 step, 1e-5, 1e-3) fit fp64; no value of this draw lies within a step of ReLU's corner.
    assert torch.autograd.gradcheck(kernel, (x, weight, bias, residual))


@pytest.mark.parametrize("backend", BACKENDS)
def test_leaves_its_inputs_alone(backend: str) -> None:
    """The tail works in place: on its own tensor, not on the caller's."""
    inputs = [draw((2, 4, 2, 3, 3)), torch.ones(4), torch.zeros(4), draw((2, 4, 2, 3, 3), seed=1)]
    before = [tensor.clone() for tensor in inputs]
    group_norm(*inputs[:3], 2, EPS, inputs[3], "relu", backend)  # type: ignore[arg-type]
    assert all(torch.equal(tensor, old) for tensor, old in zip(inputs, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_keeps_dtype_and_memory_format(backend: str, layout: str, dtype: torch.dtype) -> None:
    x = draw((2, 8, 2, 3, 4), mean=3).to(dtype).to(memory_format=LAYOUTS[layout]).requires_grad_()
    weight, bias = draw((8,), 1, seed=1), draw((8,), seed=2)
    if dtype is torch.float64:
        weight, bias = weight.double(), bias.double()
    with torch.autocast("cpu", torch.bfloat16):
        y = group_norm(x, weight, bias, 4, EPS, x, "relu", backend)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(y, x, draw((2, 8, 2, 3, 4), seed=3).to(y))
    assert y.dtype == gradient.dtype == dtype
    assert y.is_contiguous(memory_format=LAYOUTS[layout])
    assert gradient.is_contiguous(memory_format=LAYOUTS[layout])
    # Inside, fp32 at least: four roundings of values up to ~8. The reference then rounds to the dtype of x once, by
    # half an eps of the result; torch also rounds x - mean and, before the residual, the norm.
    expected = definition(x, weight, bias, 4, x, "relu")
    inside = 4 * 8 * torch.finfo(torch.float32).eps
    rounding = torch.finfo(dtype).eps / 2
    rtol, atol = (rounding, inside) if backend == "reference" else (0, inside + 3 * 8 * rounding)
    torch.testing.assert_close(y.double(), expected, atol=atol, rtol=rtol)


@pytest.mark.parametrize("mean", [0.0, 64.0], ids=["centered", "far"])
@pytest.mark.parametrize("size", [(2, 9, 9), (8, 56, 56)], ids=["few", "1e5_values"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16_is_rounded_once(backend: str, layout: str, size: tuple[int, int, int], mean: float) -> None:
    x = draw((1, 8, *size), mean).bfloat16().to(memory_format=LAYOUTS[layout])
    weight, bias = draw((8,), 1, seed=1), draw((8,), seed=2)
    y = group_norm(x, weight, bias, 2, EPS, backend=backend)  # type: ignore[arg-type]
    # The result, by half an eps of its own. Inside, fp32: four roundings of values up to 16 and of the mean; and where torch adds
    # the values of a group one after the other, the square root of their number besides.
    roundings = 4 + math.sqrt(4 * math.prod(size))
    inside = roundings * torch.finfo(torch.float32).eps * (16 + mean)
    expected = definition(x, weight, bias, 2, None, None)
    torch.testing.assert_close(y.double(), expected, atol=inside, rtol=torch.finfo(torch.bfloat16).eps / 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clip_does_not_see_its_batch(backend: str) -> None:
    x, weight, bias = draw((5, 8, 3, 5, 5), mean=2), draw((8,), 1, seed=1), draw((8,), seed=2)
    whole = group_norm(x, weight, bias, 4, EPS, None, "relu", backend)  # type: ignore[arg-type]
    for index, clip in enumerate(x):
        alone = group_norm(clip[None], weight, bias, 4, EPS, None, "relu", backend)  # type: ignore[arg-type]
        assert torch.equal(alone[0], whole[index])


@pytest.mark.parametrize("num_clips", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_value_a_group_gives_beta(backend: str, num_clips: int) -> None:
    """torch.nn.functional.group_norm refuses this, but for one clip only."""
    x, bias = draw((num_clips, 4, 1, 1, 1)), draw((4,), seed=1)
    y = group_norm(x, torch.ones(4), bias, 4, EPS, backend=backend)  # type: ignore[arg-type]
    # x * rstd - mean * rstd rounds twice, and rstd is eps ** -0.5 = 316.
    atol = 2 * torch.finfo(torch.float32).eps * x.abs().max().item() * EPS**-0.5
    torch.testing.assert_close(y.flatten(1), bias.expand(num_clips, 4), atol=atol, rtol=0)


def test_runs_on_the_meta_device_without_affine() -> None:
    x = torch.empty(2, 8, 2, 3, 4, device="meta").to(memory_format=torch.channels_last_3d)
    for backend in BACKENDS:
        y = group_norm(x, None, None, 4, EPS, x, "silu", backend)  # type: ignore[arg-type]
        assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)


def test_torch_still_cancels_in_channels_last() -> None:
    """The reason for aten._group_means; when this fails, torch has mended its kernel and that code may go."""
    x = draw((2, 64, 4, 10, 10), mean=1e3).to(memory_format=torch.channels_last_3d)
    error = (torch.group_norm(x, 32, eps=EPS) - definition(x, torch.ones(64), torch.zeros(64), 32, None, None)).abs()
    assert error.max() > 1
    assert aten.group_norm(x, None, None, 32, EPS, None, None).std().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"num_groups": 7},
            "GroupNorm: num_groups=7 does not divide channels=64; use one of 1, 2, 4, 8, 16, 32, 64",
        ),
        ({"num_groups": 0}, "num_groups=0 does not divide"),
        ({"weight": torch.ones(3)}, r"weight is \(3,\) float32; x has 64 channels"),
        ({"residual": torch.ones(2, 64, 1, 1, 1)}, r"residual is \(2, 64, 1, 1, 1\) float32, x is \(2, 64, 2, 2, 2\)"),
        ({"activation": "gelu"}, "activation='gelu'; use None, 'relu' or 'silu'"),
        ({"backend": "cuda"}, "backend='cuda'; use one of reference, aten, triton"),
        ({"x": torch.ones(2, 64, 2, 2, 2, dtype=torch.int64)}, "int64; it must be floating point"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_errors_name_the_remedy(change: dict, message: str) -> None:
    arguments = {"x": torch.ones(2, 64, 2, 2, 2), "weight": None, "bias": None, "num_groups": 32, "eps": EPS}
    with pytest.raises(InputError, match=message):
        group_norm(**(arguments | change))
