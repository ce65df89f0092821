"""Where the elements of a program lie, and what is done with each: the parts that the kernels share.

A tile is BLOCK_C channels x BLOCK_S positions of one clip, whatever the layout.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place(channels, positions, chunk, CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr):
    """The clip, the block of channels and the chunk of this program; neighbours read neighbouring memory."""
    num_chunks = tl.cdiv(positions, chunk)
    num_blocks = tl.cdiv(channels, BLOCK_C)
    n = tl.program_id(0) // (num_chunks * num_blocks)
    rest = tl.program_id(0) % (num_chunks * num_blocks)
    # int64: N * C * S passes 2**31 with 42 clips of 64 x 64 x 112 x 112.
    if CHANNELS_LAST:
        return n.to(tl.int64), rest % num_blocks, rest // num_blocks
    return n.to(tl.int64), rest // num_chunks, rest % num_chunks


@triton.jit
def first(n, block, s, channels, positions, CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr):
    """The offset of a tile's first element (int64, a scalar); those inside the tile are small."""
    if CHANNELS_LAST:
        return (n * positions + s) * channels + block * BLOCK_C
    return (n * channels + block * BLOCK_C) * positions + s


@triton.jit
def inside(channels, positions, CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr):
    """Offsets of a tile's elements from its first, (BLOCK_C, BLOCK_S)."""
    c = tl.arange(0, BLOCK_C)[:, None]
    s = tl.arange(0, BLOCK_S)[None, :]
    if CHANNELS_LAST:
        return s * channels + c
    return c * positions + s


@triton.jit
def mask_place(n, block, start, channels, positions, CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr):
    """Offsets of the bytes that hold a tile's bits, and which of them there are."""
    if CHANNELS_LAST:  # with `else`, since Triton compiles what stands behind a return too, and the shapes differ
        row_bytes = tl.cdiv(channels, 8)
        first_byte = block * (BLOCK_C // 8)
        byte = tl.arange(0, BLOCK_C // 8)[:, None]
        s = tl.arange(0, BLOCK_S)[None, :]
        valid = (first_byte + byte < row_bytes) & (start + s < positions)
        return (n * positions + start) * row_bytes + first_byte + (s * row_bytes + byte), valid
    else:
        row_bytes = tl.cdiv(positions, 8)
        first_byte = start // 8
        byte = tl.arange(0, BLOCK_S // 8)[None, :]
        c = tl.arange(0, BLOCK_C)[:, None]
        valid = (block * BLOCK_C + c < channels) & (first_byte + byte < row_bytes)
        return (n * channels + block * BLOCK_C) * row_bytes + first_byte + (c * row_bytes + byte), valid


@triton.jit
def pack(bits, CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr):
    """Eight neighbours in memory to a byte."""
    if CHANNELS_LAST:
        places = tl.arange(0, 8)[None, :, None]
        return tl.sum(tl.reshape(bits.to(tl.int32), (BLOCK_C // 8, 8, BLOCK_S)) << places, axis=1).to(tl.uint8)
    else:
        places = tl.arange(0, 8)[None, None, :]
        return tl.sum(tl.reshape(bits.to(tl.int32), (BLOCK_C, BLOCK_S // 8, 8)) << places, axis=2).to(tl.uint8)


@triton.jit
def unpack(packed, CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr):
    """The bits of `pack` as a tile."""
    if CHANNELS_LAST:
        bits = (packed.to(tl.int32)[:, None, :] >> tl.arange(0, 8)[None, :, None]) & 1
    else:
        bits = (packed.to(tl.int32)[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1
    return tl.reshape(bits, (BLOCK_C, BLOCK_S)) != 0


@triton.jit
def normalized(centered, scale, bias):
    """gamma * rstd * (x - mean) + beta: one expression for both passes, since the backward recomputes the mask of a ReLU."""
    return tl.fma(centered, tl.broadcast_to(scale, centered.shape), tl.broadcast_to(bias, centered.shape))


@triton.jit
def before_activation(dy, z, ACTIVATION: tl.constexpr):
    """The gradient of the sum z that went into the activation."""
    if ACTIVATION == "relu":
        return tl.where(z <= 0, 0.0, dy)
    sigmoid = 1.0 / (1.0 + tl.exp(-z))
    return dy * sigmoid * (1.0 + z * (1.0 - sigmoid))
