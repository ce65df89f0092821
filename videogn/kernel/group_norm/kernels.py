# Triton's language has no types of its own.
# pyright: reportAssignmentType=false, reportOperatorIssue=false
"""The kernels: three forward and three backward, the middle one of each merging what the programs of the first wrote."""

from __future__ import annotations

import triton
import triton.language as tl

from videogn.kernel.group_norm.tile import before_activation, first, inside, mask_place, normalized, pack, place, unpack


@triton.jit
def moments_kernel(
    x_ptr,
    mean_ptr,
    m2_ptr,
    channels,
    positions,
    chunk,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
    FP64: tl.constexpr,
):
    """Mean and sum of squared distances to it, of each channel of a chunk; partials are (N, K, C)."""
    ACC: tl.constexpr = tl.float64 if FP64 else tl.float32
    n, block, k = place(channels, positions, chunk, CHANNELS_LAST, BLOCK_C)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)[:, None]
    lane = tl.arange(0, BLOCK_S)[None, :]
    elements = inside(channels, positions, CHANNELS_LAST, BLOCK_C, BLOCK_S)
    end = tl.minimum(positions, (k + 1) * chunk)

    # Each lane keeps its own moments (Welford), so that a tile costs no exchange between threads.
    mean = tl.zeros((BLOCK_C, BLOCK_S), ACC)
    m2 = tl.zeros((BLOCK_C, BLOCK_S), ACC)
    count = tl.zeros((), ACC)
    for start in range(k * chunk, end, BLOCK_S):
        count += 1.0
        valid = (c < channels) & (start + lane < end)
        begin = first(n, block, start, channels, positions, CHANNELS_LAST, BLOCK_C)
        x = tl.load(x_ptr + begin + elements, mask=valid, other=0.0).to(ACC)
        delta = tl.where(valid, x - mean, 0.0)
        mean += delta * (1.0 / count)
        m2 += delta * (x - mean)

    # Chan's rule over the lanes, of which the last tile may have left some with one value less.
    length = end - k * chunk
    counts = tl.where(lane < length, (length - 1 - lane) // BLOCK_S + 1, 0).to(ACC)
    total = tl.sum(counts)
    merged = tl.sum(counts * mean, axis=1, keep_dims=True) / total
    m2 = tl.sum(m2 + counts * (mean - merged) * (mean - merged), axis=1, keep_dims=True)
    at = (n * tl.cdiv(positions, chunk) + k) * channels + c
    tl.store(mean_ptr + at, merged, mask=c < channels)
    tl.store(m2_ptr + at, m2, mask=c < channels)


@triton.jit
def finish_moments_kernel(
    partial_mean_ptr,
    partial_m2_ptr,
    mean_ptr,
    rstd_ptr,
    channels,
    positions,
    chunk,
    num_groups,
    eps_high,
    eps_low,
    BLOCK: tl.constexpr,
    FP64: tl.constexpr,
):
    """Merges the moments of a group's chunks and channels by Chan's rule; one program a clip and group."""
    ACC: tl.constexpr = tl.float64 if FP64 else tl.float32
    program = tl.program_id(0)
    n = (program // num_groups).to(tl.int64)
    g = program % num_groups
    num_chunks = tl.cdiv(positions, chunk)
    width = channels // num_groups

    total = tl.zeros((), ACC)
    mean = tl.zeros((), ACC)
    m2 = tl.zeros((), ACC)
    for start in range(0, num_chunks * width, BLOCK):
        i = start + tl.arange(0, BLOCK)
        valid = i < num_chunks * width
        k = i // width
        at = (n * num_chunks + k) * channels + g * width + i % width
        counts = tl.where(valid, tl.minimum(positions - k * chunk, chunk), 0).to(ACC)
        means = tl.load(partial_mean_ptr + at, mask=valid, other=0.0)
        m2s = tl.load(partial_m2_ptr + at, mask=valid, other=0.0)
        added = tl.sum(counts)
        block = tl.sum(counts * means) / added
        delta = block - mean
        m2 += tl.sum(m2s + counts * (means - block) * (means - block)) + delta * delta * (total * added / (total + added))
        mean += delta * (added / (total + added))
        total += added
    # A Python float arrives as fp32; two of them make the eps of fp64.
    eps = tl.zeros((), ACC) + eps_high + eps_low
    tl.store(mean_ptr + program, mean)
    tl.store(rstd_ptr + program, tl.rsqrt(m2 / total + eps))


@triton.jit
def apply_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    rstd_ptr,
    y_ptr,
    mask_ptr,
    channels,
    positions,
    chunk,
    num_groups,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
    FP64: tl.constexpr,
    RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """y = activation(gamma * (x - mean) * rstd + beta + residual)"""
    ACC: tl.constexpr = tl.float64 if FP64 else tl.float32
    n, block, k = place(channels, positions, chunk, CHANNELS_LAST, BLOCK_C)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)[:, None]
    lane = tl.arange(0, BLOCK_S)[None, :]
    elements = inside(channels, positions, CHANNELS_LAST, BLOCK_C, BLOCK_S)
    group = n * num_groups + c // (channels // num_groups)
    mean = tl.load(mean_ptr + group, mask=c < channels, other=0.0)
    scale = tl.load(rstd_ptr + group, mask=c < channels, other=0.0) * tl.load(weight_ptr + c, mask=c < channels, other=0.0)
    bias = tl.load(bias_ptr + c, mask=c < channels, other=0.0)
    for start in range(k * chunk, tl.minimum(positions, (k + 1) * chunk), BLOCK_S):
        valid = (c < channels) & (start + lane < positions)
        begin = first(n, block, start, channels, positions, CHANNELS_LAST, BLOCK_C)
        x = tl.load(x_ptr + begin + elements, mask=valid, other=0.0).to(ACC)
        y = normalized(x - mean, scale, bias)
        if RESIDUAL:
            y += tl.load(residual_ptr + begin + elements, mask=valid, other=0.0).to(ACC)
        if ACTIVATION == "relu":
            if RESIDUAL:
                bytes_at, bytes_valid = mask_place(n, block, start, channels, positions, CHANNELS_LAST, BLOCK_C, BLOCK_S)
                kept = valid & ~(y <= 0)  # NaN too, as torch keeps it
                tl.store(mask_ptr + bytes_at, pack(kept, CHANNELS_LAST, BLOCK_C, BLOCK_S), mask=bytes_valid)
            y = tl.where(y <= 0, 0.0, y)
        elif ACTIVATION == "silu":
            y = y / (1.0 + tl.exp(-y))
        tl.store(y_ptr + begin + elements, y, mask=valid)


@triton.jit
def sums_kernel(
    dy_ptr,
    x_ptr,
    residual_ptr,
    mask_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    rstd_ptr,
    dz_ptr,
    sum_dz_ptr,
    sum_dz_xhat_ptr,
    channels,
    positions,
    chunk,
    num_groups,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
    FP64: tl.constexpr,
    RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """Sums of dz and of dz * xhat, of each channel of a chunk; where a residual was added, dz is its gradient and is kept."""
    ACC: tl.constexpr = tl.float64 if FP64 else tl.float32
    n, block, k = place(channels, positions, chunk, CHANNELS_LAST, BLOCK_C)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)[:, None]
    lane = tl.arange(0, BLOCK_S)[None, :]
    elements = inside(channels, positions, CHANNELS_LAST, BLOCK_C, BLOCK_S)
    group = n * num_groups + c // (channels // num_groups)
    mean = tl.load(mean_ptr + group, mask=c < channels, other=0.0)
    rstd = tl.load(rstd_ptr + group, mask=c < channels, other=0.0)
    scale = rstd * tl.load(weight_ptr + c, mask=c < channels, other=0.0)
    bias = tl.load(bias_ptr + c, mask=c < channels, other=0.0)
    sum_dz = tl.zeros((BLOCK_C, BLOCK_S), ACC)
    sum_dz_centered = tl.zeros((BLOCK_C, BLOCK_S), ACC)
    for start in range(k * chunk, tl.minimum(positions, (k + 1) * chunk), BLOCK_S):
        valid = (c < channels) & (start + lane < positions)
        begin = first(n, block, start, channels, positions, CHANNELS_LAST, BLOCK_C)
        centered = tl.load(x_ptr + begin + elements, mask=valid, other=0.0).to(ACC) - mean
        dz = tl.load(dy_ptr + begin + elements, mask=valid, other=0.0).to(ACC)
        if RESIDUAL and ACTIVATION == "relu":
            bytes_at, bytes_valid = mask_place(n, block, start, channels, positions, CHANNELS_LAST, BLOCK_C, BLOCK_S)
            packed = tl.load(mask_ptr + bytes_at, mask=bytes_valid, other=0)
            dz = tl.where(unpack(packed, CHANNELS_LAST, BLOCK_C, BLOCK_S), dz, 0.0)
        elif ACTIVATION is not None:
            z = normalized(centered, scale, bias)
            if RESIDUAL:
                z += tl.load(residual_ptr + begin + elements, mask=valid, other=0.0).to(ACC)
            dz = before_activation(dz, z, ACTIVATION)
        if RESIDUAL:
            rounded = dz.to(dz_ptr.dtype.element_ty)  # what the last kernel will read
            tl.store(dz_ptr + begin + elements, rounded, mask=valid)
            dz = rounded.to(ACC)
        sum_dz += dz
        sum_dz_centered += dz * centered
    at = (n * tl.cdiv(positions, chunk) + k) * channels + c
    tl.store(sum_dz_ptr + at, tl.sum(sum_dz, axis=1, keep_dims=True), mask=c < channels)
    tl.store(sum_dz_xhat_ptr + at, tl.sum(sum_dz_centered, axis=1, keep_dims=True) * rstd, mask=c < channels)


@triton.jit
def finish_sums_kernel(
    partial_dz_ptr,
    partial_dz_xhat_ptr,
    weight_ptr,
    sum_dz_ptr,
    sum_dz_xhat_ptr,
    mean_dz_ptr,
    mean_dz_xhat_ptr,
    channels,
    positions,
    chunk,
    num_groups,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FP64: tl.constexpr,
):
    """Sums of each channel over its chunks, and means of gamma times them over a group; one program a clip and group."""
    ACC: tl.constexpr = tl.float64 if FP64 else tl.float32
    program = tl.program_id(0)
    n = (program // num_groups).to(tl.int64)
    g = program % num_groups
    num_chunks = tl.cdiv(positions, chunk)
    width = channels // num_groups

    group_dz = tl.zeros((BLOCK_C,), ACC)
    group_dz_xhat = tl.zeros((BLOCK_C,), ACC)
    for begin in range(0, width, BLOCK_C):
        in_group = begin + tl.arange(0, BLOCK_C)
        c = g * width + in_group
        channel_dz = tl.zeros((BLOCK_K, BLOCK_C), ACC)
        channel_dz_xhat = tl.zeros((BLOCK_K, BLOCK_C), ACC)
        for start in range(0, num_chunks, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)[:, None]
            valid = (k < num_chunks) & (in_group < width)[None, :]
            at = (n * num_chunks + k) * channels + c[None, :]
            channel_dz += tl.load(partial_dz_ptr + at, mask=valid, other=0.0)
            channel_dz_xhat += tl.load(partial_dz_xhat_ptr + at, mask=valid, other=0.0)
        sum_dz = tl.sum(channel_dz, axis=0)
        sum_dz_xhat = tl.sum(channel_dz_xhat, axis=0)
        tl.store(sum_dz_ptr + n * channels + c, sum_dz, mask=in_group < width)
        tl.store(sum_dz_xhat_ptr + n * channels + c, sum_dz_xhat, mask=in_group < width)
        weight = tl.load(weight_ptr + c, mask=in_group < width, other=0.0)
        group_dz += weight * sum_dz
        group_dz_xhat += weight * sum_dz_xhat
    size = (tl.zeros((), ACC) + width) * positions
    tl.store(mean_dz_ptr + program, tl.sum(group_dz) / size)
    tl.store(mean_dz_xhat_ptr + program, tl.sum(group_dz_xhat) / size)


@triton.jit
def gradient_kernel(
    dz_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    rstd_ptr,
    mean_dz_ptr,
    mean_dz_xhat_ptr,
    dx_ptr,
    channels,
    positions,
    chunk,
    num_groups,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
    FP64: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """dx = rstd * (gamma * dz - mean(gamma * dz) - xhat * mean(gamma * dz * xhat)), means over the group."""
    ACC: tl.constexpr = tl.float64 if FP64 else tl.float32
    n, block, k = place(channels, positions, chunk, CHANNELS_LAST, BLOCK_C)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)[:, None]
    lane = tl.arange(0, BLOCK_S)[None, :]
    elements = inside(channels, positions, CHANNELS_LAST, BLOCK_C, BLOCK_S)
    group = n * num_groups + c // (channels // num_groups)
    mean = tl.load(mean_ptr + group, mask=c < channels, other=0.0)
    rstd = tl.load(rstd_ptr + group, mask=c < channels, other=0.0)
    scale = rstd * tl.load(weight_ptr + c, mask=c < channels, other=0.0)
    bias = tl.load(bias_ptr + c, mask=c < channels, other=0.0)
    offset = -rstd * tl.load(mean_dz_ptr + group, mask=c < channels, other=0.0)
    slope = -rstd * rstd * tl.load(mean_dz_xhat_ptr + group, mask=c < channels, other=0.0)
    for start in range(k * chunk, tl.minimum(positions, (k + 1) * chunk), BLOCK_S):
        valid = (c < channels) & (start + lane < positions)
        begin = first(n, block, start, channels, positions, CHANNELS_LAST, BLOCK_C)
        centered = tl.load(x_ptr + begin + elements, mask=valid, other=0.0).to(ACC) - mean
        dz = tl.load(dz_ptr + begin + elements, mask=valid, other=0.0).to(ACC)
        if ACTIVATION is not None:
            dz = before_activation(dz, normalized(centered, scale, bias), ACTIVATION)
        tl.store(dx_ptr + begin + elements, scale * dz + slope * centered + offset, mask=valid)
