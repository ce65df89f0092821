"""The Triton kernels against the definition in fp64: on a GPU, or on the CPU with TRITON_INTERPRET=1.

Without either, the last test runs this file in a process that interprets the kernels.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton", reason="triton comes with torch on Linux")

import triton
import triton.language as tl

from videogn.kernel.group_norm import group_norm, tile
from videogn.kernel.group_norm import triton as kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RUNS = torch.cuda.is_available() or kernels.INTERPRETED
runs_kernels = pytest.mark.skipif(not RUNS, reason="no GPU: test_under_the_interpreter runs these")

EPS = 1e-5
FORMATS = {"NCDHW": torch.contiguous_format, "NDHWC": torch.channels_last_3d}
TAILS = [(False, None), (False, "relu"), (False, "silu"), (True, None), (True, "relu"), (True, "silu")]
SHAPES = {
    "group_in_one_program": ((2, 12, 3, 5, 7), 4),  # 105 positions, and rows of the mask that end inside a byte
    "group_across_chunks": ((1, 6, 5, 21, 23), 2),  # 2415 positions: more than one chunk a channel
    "channels_across_blocks": ((2, 260, 1, 5, 5), 4),  # 65 channels a group: over the border of a block
    "one_channel_a_group": ((2, 5, 3, 17, 11), 5),
    "two_channels_a_group": ((2, 6, 3, 17, 11), 3),
    "three_channels_a_group": ((2, 9, 2, 3, 3), 3),
    "layer_norm": ((2, 7, 2, 9, 17), 1),
    "one_position": ((3, 8, 1, 1, 1), 4),
    "one_channel": ((2, 1, 3, 5, 5), 1),
    "one_clip": ((1, 8, 2, 6, 6), 2),
}


class Case(NamedTuple):
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None]  # x, gamma, beta, residual
    num_groups: int
    activation: str | None
    dy: Tensor


def draw(
    shape: tuple[int, ...],
    num_groups: int,
    tail: tuple[bool, str | None] = (True, "relu"),
    dtype: torch.dtype = torch.float32,
    layout: str = "NCDHW",
    mean: float = 0.0,
) -> Case:
    generator = torch.Generator().manual_seed(0)
    with_residual, activation = tail

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    parameters = torch.promote_types(dtype, torch.float32)
    x, residual, dy = (
        (normal(*shape) + shift).to(DEVICE, dtype).contiguous(memory_format=FORMATS[layout]).requires_grad_()
        for shift in (mean, 0, 0)
    )
    weight, bias = ((normal(shape[1]) + shift).to(DEVICE, parameters).requires_grad_() for shift in (1, 0))
    return Case((x, weight, bias, residual if with_residual else None), num_groups, activation, dy.detach())


def run(case: Case, backend: str = "triton") -> list[Tensor]:
    """y and the gradients of x, gamma, beta and the residual."""
    y = group_norm(*case.inputs[:3], case.num_groups, EPS, case.inputs[3], case.activation, backend)  # type: ignore[arg-type]
    wanted = [tensor for tensor in case.inputs if tensor is not None]
    return [y.detach(), *torch.autograd.grad(y, wanted, case.dy.to(y.dtype))]


def exact(case: Case) -> Case:
    """The same numbers in fp64."""
    x, weight, bias, residual = (None if t is None else t.detach().double().requires_grad_() for t in case.inputs)
    assert x is not None
    assert weight is not None
    assert bias is not None
    return Case((x, weight, bias, residual), case.num_groups, case.activation, case.dy.double())


def away_from_the_corner(case: Case, distance: float) -> Case:
    """No upstream gradient where ReLU's argument is so near 0 that a rounding may flip it."""
    if case.activation != "relu":
        return case
    z = run(exact(case)._replace(activation=None), "reference")[0]
    return case._replace(dy=torch.where(z.abs() <= distance, 0, case.dy))


def assert_matches_definition(case: Case) -> None:
    x, weight = case.inputs[0].detach().double(), case.inputs[1]
    groups = x.reshape(x.shape[0], case.num_groups, -1)
    rstd = torch.rsqrt(groups.var(-1, correction=0) + EPS).max().item() if x.numel() else 1.0
    gamma, dy = weight.abs().max().item(), case.dy.abs().max().item()
    # Inside, fp32 (fp64): x - mean is off by eps * |x|, times rstd and gamma; each other step by an eps of values of ~8.
    # Four of each. SiLU's slope is at most 1.1; tl.exp has 2 more. Then y is rounded to its dtype, here by one ulp, since
    # the interpreter cuts off where a GPU rounds.
    inside = torch.finfo(torch.promote_types(case.inputs[0].dtype, torch.float32)).eps
    far = x.abs().max().item() if x.numel() else 0.0
    atol = 4 * inside * (far * rstd * gamma + 8)
    rounding = torch.finfo(case.inputs[0].dtype).eps if case.inputs[0].dtype.itemsize < 4 else 0.0
    case = away_from_the_corner(case, atol)
    y, dx, dweight, dbias, *dresidual = run(case)
    expected = run(exact(case), "reference")
    torch.testing.assert_close(y.double(), expected[0], atol=atol, rtol=rounding)

    # dx is rstd * (gamma dz - two means): the error of xhat times |gamma dz|, and the roundings of three terms; where SiLU
    # and a residual are, dz is rounded to its dtype first.
    twice = 2 * rounding if dresidual and case.activation == "silu" else rounding
    slope = rstd * gamma * dy
    torch.testing.assert_close(dx.double(), expected[1], atol=(atol + twice) * 3 * slope * max(gamma, 1), rtol=twice)
    # The sums of a channel: roundings of N * T * H * W terms, which are independent and so add up as a square root.
    terms = (x.shape[0] * x.shape[2:].numel()) ** 0.5
    largest = 8 * terms * dy
    torch.testing.assert_close(dweight.double(), expected[2], atol=(atol + twice) * largest + twice * largest, rtol=0)
    torch.testing.assert_close(
        dbias.double(), expected[3], atol=(inside * 8 + (twice if twice > rounding else 0)) * largest, rtol=0
    )
    for gradient in dresidual:
        torch.testing.assert_close(gradient.double(), expected[4], atol=atol * max(dy, 1), rtol=rounding)
    assert all(a.dtype == b.dtype and a.stride() == b.stride() for a, b in zip((y, dx), (case.inputs[0],) * 2, strict=True))


@pytest.mark.turns
@runs_kernels
@pytest.mark.parametrize("tail", TAILS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("layout", FORMATS)
def test_every_tail_matches_the_definition(layout: str, dtype: torch.dtype, tail: tuple[bool, str | None]) -> None:
    assert_matches_definition(draw(*SHAPES["group_in_one_program"], tail, dtype, layout))


@pytest.mark.turns
@runs_kernels
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", FORMATS)
def test_every_shape_matches_the_definition(layout: str, shape: str) -> None:
    assert_matches_definition(draw(*SHAPES[shape], layout=layout))


@pytest.mark.turns
@runs_kernels
@pytest.mark.parametrize("layout", FORMATS)
def test_a_mean_far_from_the_deviation(layout: str) -> None:
    case = draw(*SHAPES["group_across_chunks"], layout=layout, mean=1e4)
    assert_matches_definition(case)
    x = case.inputs[0].detach().float().reshape(2, -1)
    naive = (x * x).mean(1) - x.mean(1) ** 2
    # 1 is true; E[x^2] - E[x]^2 takes two numbers of 1e8 apart, which fp32 knows to 8.
    assert (naive - 1).abs().max() > 0.1


@runs_kernels
def test_partials_that_the_finishing_kernels_take_in_several_steps() -> None:
    """1100 channels of a group, in two halves that differ; and 72 chunks of one channel."""
    case = draw((1, 1100, 1, 2, 2), 1)
    x = case.inputs[0].detach() + torch.linspace(-20, 20, 1100, device=DEVICE).round().reshape(-1, 1, 1, 1)
    assert_matches_definition(case._replace(inputs=(x.requires_grad_(), *case.inputs[1:])))
    case = draw((1, 1, 9, 128, 128), 1, (False, None))
    assert kernels.tiling(1, 9 * 128 * 128, 4, False).num_chunks == 72
    assert_matches_definition(case)


@runs_kernels
@pytest.mark.parametrize("shape", [(2, 6, 9, 7), (2, 6, 31)], ids=["image", "sound"])
def test_fewer_axes(shape: tuple[int, ...]) -> None:
    assert_matches_definition(draw(shape, 3))
    if len(shape) == 4:
        case = draw(shape, 3)
        x, *others = case.inputs
        last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        assert kernels.is_channels_last(last)
        for one, other in zip(run(case), run(case._replace(inputs=(last, *others))), strict=True):
            torch.testing.assert_close(one, other, atol=2e-5, rtol=0)  # sums of up to 126 terms of ~4 in another order


@pytest.mark.turns
@runs_kernels
@pytest.mark.parametrize("tail", [(False, None), (True, "relu")], ids=str)
@pytest.mark.parametrize("layout", FORMATS)
@settings(deadline=None, max_examples=2)
@given(
    num_clips=st.integers(2, 3),
    groups=st.sampled_from([(12, 4), (12, 12), (7, 1)]),
    size=st.sampled_from([(3, 11, 13), (2, 3, 5), (1, 1, 1)]),
)
def test_a_clip_is_the_same_in_every_batch(
    layout: str, tail: tuple[bool, str | None], num_clips: int, groups: tuple[int, int], size: tuple[int, int, int]
) -> None:
    """Bitwise, in y and in dx: no border of a sum depends on N."""
    channels, num_groups = groups
    case = draw((num_clips, channels, *size), num_groups, tail, layout=layout)
    whole = run(case)
    for n in (0, num_clips - 1):
        x, weight, bias, residual = case.inputs
        alone = (x[n : n + 1], weight, bias, None if residual is None else residual[n : n + 1])
        y, dx, *_ = run(case._replace(inputs=alone, dy=case.dy[n : n + 1]))
        assert torch.equal(y[0], whole[0][n])
        assert torch.equal(dx[0], whole[1][n])


@pytest.mark.turns
@runs_kernels
@pytest.mark.parametrize("layout", FORMATS)
def test_every_run_is_the_same(layout: str) -> None:
    case = draw((2, 64, 4, 28, 28) if DEVICE == "cuda" else (2, 12, 3, 11, 13), 4, layout=layout)
    first = run(case)
    for _ in range(20 if DEVICE == "cuda" else 2):
        assert all(torch.equal(one, other) for one, other in zip(first, run(case), strict=True))


@pytest.mark.parametrize("shape", [(0, 8, 2, 3, 3), (2, 8, 0, 3, 3)], ids=["no_clips", "no_frames"])
def test_nothing_in_nothing_out(shape: tuple[int, ...]) -> None:
    y, dx, dweight, dbias, dresidual = run(draw(shape, 4))
    assert y.shape == dx.shape == dresidual.shape == shape
    assert dweight.tolist() == dbias.tolist() == [0.0] * 8


@runs_kernels
def test_inputs_that_are_not_dense() -> None:
    case = draw((2, 16, 4, 6, 10), 2)
    x, weight, bias, residual = case.inputs
    assert residual is not None
    strided = x[:, ::2, :, :, 1:9]
    transposed = residual[:, :8].transpose(3, 4).contiguous().transpose(3, 4)[..., 1:9]
    flat = case._replace(
        inputs=(strided.contiguous(), weight[:8], bias[:8], transposed.contiguous()), dy=case.dy[:, :8, :, :, 1:9].contiguous()
    )
    sparse = case._replace(inputs=(strided, weight[:8], bias[:8], transposed), dy=case.dy[:, :8, :, :, 1:9])
    assert not sparse.inputs[0].is_contiguous()
    for one, other in zip(run(flat), run(sparse), strict=True):
        assert torch.equal(one, other)
    # A gradient of one number, as sum() sends it, is expanded: every stride is 0.
    y = group_norm(*flat.inputs[:3], 2, EPS, flat.inputs[3], "relu", "triton")
    (expanded,) = torch.autograd.grad(y.sum(), flat.inputs[0], retain_graph=True)
    (dense,) = torch.autograd.grad(y, flat.inputs[0], torch.ones_like(y))
    assert torch.equal(expanded, dense)


@runs_kernels
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_not_a_number_is_shown_and_stays_in_its_clip(activation: str, layout: str) -> None:
    case = draw((3, 12, 3, 5, 7), 4, (True, activation), layout=layout)
    x = case.inputs[0].detach().clone(memory_format=FORMATS[layout])
    x[1, 0, 0, 0, 0] = float("nan")
    y, dx, _, _, dresidual = run(case._replace(inputs=(x.requires_grad_(), *case.inputs[1:])))
    if activation == "relu":  # as torch's relu does
        assert torch.equal(dresidual[1, :3], case.dy[1, :3])
    assert y[1, :3].isnan().all()
    assert dx[1, :3].isnan().all()
    assert torch.isfinite(y[[0, 2]]).all()
    assert torch.isfinite(dx[[0, 2]]).all()
    assert torch.isfinite(y[1, 3:]).all()


@runs_kernels
def test_the_mask_is_one_bit_an_element() -> None:
    x = torch.randn(2, 64, 4, 8, 8, device=DEVICE)
    ones = torch.ones(64, device=DEVICE)
    saved = kernels.forward(x, ones, ones, 8, EPS, x, "relu")
    assert saved.mask.nbytes * 8 == x.numel()
    assert kernels.forward(x, ones, ones, 8, EPS, x, "silu").mask.numel() == 0
    assert kernels.forward(x, ones, ones, 8, EPS, None, "relu").mask.numel() == 0


@triton.jit
def offsets_kernel(out_ptr, n, block, start, channels, positions, CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr):  # noqa: N803
    clip, _, _ = tile.place(channels, positions, positions, CHANNELS_LAST, BLOCK_C)  # of program 0
    n = clip + n
    tl.store(out_ptr, tile.first(n, block, start, channels, positions, CHANNELS_LAST, BLOCK_C))
    at, _ = tile.mask_place(n, block, start, channels, positions, CHANNELS_LAST, BLOCK_C, 16)
    tl.store(out_ptr + 1, tl.max(at))


@runs_kernels
@pytest.mark.parametrize("channels_last", [False, True])
def test_addresses_beyond_two_to_the_31(channels_last: bool) -> None:
    """Clip 60 of 64 frames; by arithmetic alone, since the interpreter would need hours for the elements."""
    channels, positions, block_c = 64, 64 * 112 * 112, 32
    out = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    offsets_kernel[(1,)](out, 60, 1, positions - 16, channels, positions, channels_last, block_c)
    if channels_last:
        first = (60 * positions + positions - 16) * channels + block_c
        last_byte = (60 * positions + positions - 1) * (channels // 8) + channels // 8 - 1
    else:
        first = (60 * channels + block_c) * positions + positions - 16
        last_byte = (60 * channels + channels - 1) * (positions // 8) + positions // 8 - 1
    assert out.tolist() == [first, last_byte]
    assert first > 2**31


@pytest.mark.gpu
def test_more_than_two_to_the_31_elements() -> None:
    x = torch.randn(6, 64, 64, 300, 300, device="cuda", dtype=torch.bfloat16)
    assert x.numel() > 2**31
    ones = torch.ones(64, device="cuda")
    y = group_norm(x, ones, ones, 32, EPS, backend="triton")[-1, -2:].double()
    # The last group of the last clip: one rounding to bf16, and of fp32 a few inside.
    expected = (group := x[-1, -2:].double()).sub(group.mean()) / (group.var(correction=0) + EPS).sqrt() + 1
    torch.testing.assert_close(y, expected, atol=4 * 8 * torch.finfo(torch.float32).eps, rtol=torch.finfo(torch.bfloat16).eps / 2)


@pytest.mark.gpu
def test_no_wait_for_the_host() -> None:
    case = draw((2, 64, 4, 28, 28), 32)
    run(case)  # compiles
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(case)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.gpu
def test_bf16_stays_bf16_under_cuda_autocast() -> None:
    case = draw((2, 64, 4, 8, 8), 32, dtype=torch.bfloat16)
    with torch.autocast("cuda", torch.bfloat16):
        assert group_norm(*case.inputs[:3], 32, EPS).dtype == torch.bfloat16


@pytest.mark.gpu
def test_compiled_on_a_gpu() -> None:
    case = draw((2, 64, 4, 8, 8), 32, dtype=torch.bfloat16, layout="NDHWC")
    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=False)
    for one, other in zip(compiled(case), run(case), strict=True):
        assert torch.equal(one, other)


@pytest.mark.skipif(RUNS or bool(os.environ.get("TRITON_INTERPRET")), reason="this process runs the kernels itself")
def test_under_the_interpreter(pytestconfig: pytest.Config) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "--import-mode=importlib", "-p", "no:cacheprovider", __file__]
    if (turn := pytestconfig.getoption("turn")) is not None:
        command += ["--turn", str(turn)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "test_under_the_interpreter runs these" not in done.stdout  # nothing but GPU tests was skipped, and this one
    print(done.stdout.splitlines()[-1])
