# A launch takes plain numbers for constexpr, and options.
# pyright: reportArgumentType=false, reportCallIssue=false
"""Group normalization in Triton: two passes over x, fused with the residual addition and the activation.

A clip is C channels x S positions, contiguous (C, S) or channels-last (S, C). One tile is `block_c` channels x `block_s`
positions, a chunk some tiles of the same channels. Forward: moments of every chunk and channel, merged to mean and rstd of
a group, then y. Backward: sums of every chunk and channel, merged to dgamma, dbeta and the means of a group, then dx.

Each partial result has one writer and one finishing program reads them in a fixed order, so results are bitwise the same in
every run; no border depends on N or the device, so a clip's are bitwise the same in every batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
from torch import Tensor
from triton import knobs

from videogn.kernel.group_norm.kernels import (
    apply_kernel,
    finish_moments_kernel,
    finish_sums_kernel,
    gradient_kernel,
    moments_kernel,
    sums_kernel,
)


class Tiling(NamedTuple):
    """How a clip is divided, from (C, S, dtype, layout) alone: never from N, the device or a measurement."""

    channels_last: bool
    block_c: int
    block_s: int
    chunk: int  # positions, a multiple of block_s
    num_chunks: int
    num_blocks: int  # of channels


class Saved(NamedTuple):
    """What the forward pass gives: the output, and what the backward pass reads beside x."""

    y: Tensor
    mean: Tensor  # (N, G), fp32 (fp64 of fp64 inputs)
    rstd: Tensor
    mask: Tensor  # uint8, one bit an element where y came from a positive sum; empty unless ReLU follows a residual


# Triton from 3.10 on fuses a * b + c only where it is told to; one rounding less, and one instruction.
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}
INTERPRETED = knobs.runtime.interpret  # TRITON_INTERPRET=1, which triton reads when a kernel is declared
_FINISH = 1024  # partial moments a step of the finishing kernel


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a position lie beside each other; where both layouts agree, no."""
    return x.ndim in (4, 5) and x.stride(1) == 1 and not x.is_contiguous()


def memory_format(x: Tensor) -> torch.memory_format:
    """The format that the outputs take over from x."""
    if not is_channels_last(x):
        return torch.contiguous_format
    return torch.channels_last if x.ndim == 4 else torch.channels_last_3d


def tiling(channels: int, positions: int, element_size: int, channels_last: bool) -> Tiling:
    """The division of a clip. The values of block_c and block_s are few: each is compiled ahead of time in the tests."""
    small, large = (64, 128) if channels_last else (16, 1)
    block_c = large if (channels > 64 if channels_last else positions >= 2048) else small
    # 16 bytes a thread and tensor, or 32: with more than one channel a thread, twice that takes up to 255 registers.
    tile_bytes = 8192 if block_c == 1 else 4096
    block_s = tile_bytes // element_size // block_c
    num_blocks = triton.cdiv(channels, block_c)
    # A chunk reads up to 64 KiB; but 128 chunks a clip come first, since a small activation needs the parallelism more.
    tiles = num_blocks * triton.cdiv(positions, block_s)
    chunk = block_s * min(65536 // tile_bytes, triton.next_power_of_2(max(1, tiles // 128)))
    return Tiling(channels_last, block_c, block_s, chunk, triton.cdiv(positions, chunk), num_blocks)


def mask_shape(x: Tensor) -> tuple[int, int, int]:
    """Bits lie along the axis that is contiguous in memory, each row of it padded to whole bytes."""
    num_clips, channels, positions = _sizes(x)
    rows, bits = (positions, channels) if is_channels_last(x) else (channels, positions)
    return num_clips, rows, triton.cdiv(bits, 8)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    residual: Tensor | None,
    activation: str | None,
) -> Saved:
    """y and what the backward pass needs. x and residual are dense in the layout of x; weight and bias fp32 (or fp64)."""
    _check(x, weight, bias, residual)
    saved = allocate(x, num_groups, residual is not None, activation)
    num_clips, channels, positions = _sizes(x)
    if x.numel() == 0:
        return saved
    t = tiling(channels, positions, x.element_size(), is_channels_last(x))
    sizes = {"channels": channels, "positions": positions, "chunk": t.chunk, **OPTIONS}
    partial_mean, partial_m2 = saved.mean.new_empty((2, num_clips, t.num_chunks, channels)).unbind()
    programs = (num_clips * t.num_chunks * t.num_blocks,)

    moments_kernel[programs](x, partial_mean, partial_m2, **sizes, **_blocks(t, x))
    eps_high = torch.tensor(eps, dtype=torch.float32).item()
    finish_moments_kernel[(num_clips * num_groups,)](
        partial_mean,
        partial_m2,
        saved.mean,
        saved.rstd,
        **sizes,
        num_groups=num_groups,
        eps_high=eps_high,
        eps_low=eps - eps_high,
        BLOCK=_FINISH,
        FP64=x.dtype == torch.float64,
    )
    apply_kernel[programs](
        x,
        x if residual is None else residual,
        weight,
        bias,
        saved.mean,
        saved.rstd,
        saved.y,
        saved.mask,
        **sizes,
        num_groups=num_groups,
        **_blocks(t, x),
        RESIDUAL=residual is not None,
        ACTIVATION=activation,
    )
    return saved


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    residual: Tensor | None,
    mask: Tensor,
    num_groups: int,
    activation: str | None,
    with_residual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dx, dgamma, dbeta and dz, the residual's gradient: empty where that is dy itself. `residual` is read for SiLU alone."""
    _check(x, weight, bias, residual, dy)
    num_clips, channels, positions = _sizes(x)
    keeps_dz = with_residual and activation is not None
    dx = torch.empty_like(x)
    dz = torch.empty_like(x) if keeps_dz else x.new_empty(0)
    sum_dz, sum_dz_xhat = (mean.new_zeros((num_clips, channels)) for _ in range(2))
    if x.numel() == 0:
        return dx, sum_dz_xhat.sum(0), sum_dz.sum(0), dz
    t = tiling(channels, positions, x.element_size(), is_channels_last(x))
    sizes = {"channels": channels, "positions": positions, "chunk": t.chunk, "num_groups": num_groups, **OPTIONS}
    partial_dz, partial_dz_xhat = mean.new_empty((2, num_clips, t.num_chunks, channels)).unbind()
    programs = (num_clips * t.num_chunks * t.num_blocks,)

    sums_kernel[programs](
        dy,
        x,
        x if residual is None else residual,
        mask,
        weight,
        bias,
        mean,
        rstd,
        dz,
        partial_dz,
        partial_dz_xhat,
        **sizes,
        **_blocks(t, x),
        RESIDUAL=keeps_dz,
        ACTIVATION=activation,
    )
    mean_dz, mean_dz_xhat = (torch.empty_like(mean) for _ in range(2))
    finish_sums_kernel[(num_clips * num_groups,)](
        partial_dz,
        partial_dz_xhat,
        weight,
        sum_dz,
        sum_dz_xhat,
        mean_dz,
        mean_dz_xhat,
        **sizes,
        BLOCK_C=16,
        BLOCK_K=64,
        FP64=x.dtype == torch.float64,
    )
    gradient_kernel[programs](
        dz if keeps_dz else dy,
        x,
        weight,
        bias,
        mean,
        rstd,
        mean_dz,
        mean_dz_xhat,
        dx,
        **sizes,
        **_blocks(t, x),
        ACTIVATION=None if keeps_dz else activation,
    )
    return dx, sum_dz_xhat.sum(0), sum_dz.sum(0), dz


def allocate(x: Tensor, num_groups: int, with_residual: bool, activation: str | None) -> Saved:
    """The tensors of the forward pass, with the strides that they will have: also its fake kernel."""
    accumulate = torch.promote_types(x.dtype, torch.float32)
    mean = x.new_empty((x.shape[0], num_groups), dtype=accumulate)
    keeps_mask = with_residual and activation == "relu"
    mask = x.new_empty(mask_shape(x) if keeps_mask else 0, dtype=torch.uint8)
    return Saved(torch.empty_like(x), mean, torch.empty_like(mean), mask)


def _check(x: Tensor, weight: Tensor, bias: Tensor, *others: Tensor | None) -> None:
    """What the addresses in the kernels rest on; `operator.group_norm` sees to it."""
    layout, accumulate = memory_format(x), torch.promote_types(x.dtype, torch.float32)
    assert all(t is None or (t.shape == x.shape and t.is_contiguous(memory_format=layout)) for t in (x, *others))
    assert all(t.shape == x.shape[1:2] and t.dtype == accumulate and t.is_contiguous() for t in (weight, bias))


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """N, C and the positions of a clip."""
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


def _blocks(t: Tiling, x: Tensor) -> dict[str, bool | int]:
    """The arguments by which each tiled kernel is compiled."""
    return {
        "CHANNELS_LAST": t.channels_last,
        "BLOCK_C": t.block_c,
        "BLOCK_S": t.block_s,
        "FP64": x.dtype == torch.float64,
    }
