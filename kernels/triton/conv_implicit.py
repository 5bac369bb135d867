"""Convolution as a matrix product whose operand is gathered from the image while it is multiplied (implicit GEMM).

forward and grad_input: rows are positions of all images, columns are the channels of the computed image, the terms of
the product are taps and channels of the source (gather.py). grad_weight: rows are channels of the output's gradient,
columns are taps and channels of the input, terms are positions; there are so many of those, and often so few tiles,
that they are split into parts, whose sums are added up in a fixed order: deterministic, no atomics.

Nothing is copied: per tile and step the kernel works out addresses, and masks what lies in the padding. A step takes
channels of one tap only where there are enough of them (UNIFORM), else terms of several taps.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .conv_epilogue import finish
from .gather import axes_of, locate, place, source_of
from .language import grouped, multiply_add, put
from .windows import elements


@triton.jit
def image(
    source, weight, out, bias, residual, groups, rows, channels, positions, depth, height, width,
    source_depth, source_height, source_width, first_d, first_h, first_w,
    source_n, source_c, source_p, out_n, out_c, out_p, residual_n, residual_c, residual_p,
    weight_group, weight_row, weight_channel, weight_tap,
    TAPS_D: tl.constexpr, TAPS_H: tl.constexpr, TAPS_W: tl.constexpr,
    STEP_D: tl.constexpr, STEP_H: tl.constexpr, STEP_W: tl.constexpr,
    PACE_D: tl.constexpr, PACE_H: tl.constexpr, PACE_W: tl.constexpr,
    EVERY_D: tl.constexpr, EVERY_H: tl.constexpr, EVERY_W: tl.constexpr,
    UNIFORM: tl.constexpr, RELU: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    TAPS: tl.constexpr = TAPS_D * TAPS_H * TAPS_W
    row_tiles, column_tiles = tl.cdiv(positions, BM), tl.cdiv(rows, BN)
    group = (tl.program_id(0) // (row_tiles * column_tiles)).to(tl.int64)
    tile = tl.program_id(0) % (row_tiles * column_tiles)
    row_tile, column_tile = grouped(tile, row_tiles, column_tiles, GROUP)
    position = (row_tile * BM + tl.arange(0, BM))[:, None]
    row = (column_tile * BN + tl.arange(0, BN))[None, :]
    here, there = position < positions, row < rows
    n, d, h, w = locate(position, depth, height, width)
    images = source + n * source_n + group * channels * source_c
    filters = weight + group * weight_group + row.to(tl.int64) * weight_row
    step_channels = tl.arange(0, BK)
    blocks = tl.cdiv(channels, BK)
    steps = TAPS * blocks if UNIFORM else tl.cdiv(TAPS * channels, BK)
    sums = tl.zeros([BM, BN], ACC)
    for step in range(0, steps):
        if UNIFORM:
            channel = step % blocks * BK + step_channels
            tap = tl.full([1], 0, tl.int32) + step // blocks
            real = channel < channels
        else:
            term = step * BK + step_channels
            channel, tap = term % channels, term // channels
            real = tap < TAPS
        td, th, tw = axes_of(tap[None, :], TAPS_H, TAPS_W)
        at, inside = source_of(
            d, h, w, td, th, tw, source_depth, source_height, source_width, first_d, first_h, first_w,
            STEP_D, STEP_H, STEP_W, PACE_D, PACE_H, PACE_W, EVERY_D, EVERY_H, EVERY_W,
        )  # fmt: skip
        channel = channel.to(tl.int64)
        from_source = images + at * source_p + channel[None, :] * source_c
        left = tl.load(from_source, mask=here & inside & real[None, :], other=0)
        from_weight = filters + channel[:, None] * weight_channel + tap.to(tl.int64)[:, None] * weight_tap
        right = tl.load(from_weight, mask=there & real[:, None], other=0)
        sums = multiply_add(left, right, sums, PRECISION)
    at_channel = group * rows + row
    at_position = position.to(tl.int64) - n * depth * height * width
    finish(
        sums, out, bias, residual, n, at_channel, at_position, here, there, out_n, out_c, out_p,
        residual_n, residual_c, residual_p, RELU,
    )  # fmt: skip


@triton.jit
def grad_weight(
    x, grad, out, groups, rows, channels, positions, part_positions, depth, height, width,
    source_depth, source_height, source_width, first_d, first_h, first_w,
    source_n, source_c, source_p, grad_n, grad_c, grad_p,
    out_part, out_group, out_row, out_channel, out_tap,
    TAPS_D: tl.constexpr, TAPS_H: tl.constexpr, TAPS_W: tl.constexpr,
    STEP_D: tl.constexpr, STEP_H: tl.constexpr, STEP_W: tl.constexpr,
    PACE_D: tl.constexpr, PACE_H: tl.constexpr, PACE_W: tl.constexpr,
    EVERY_D: tl.constexpr, EVERY_H: tl.constexpr, EVERY_W: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """``out``: the weight, or the sums of each part."""
    TAPS: tl.constexpr = TAPS_D * TAPS_H * TAPS_W
    row_tiles, column_tiles = tl.cdiv(rows, BM), tl.cdiv(TAPS * channels, BN)
    tiles = row_tiles * column_tiles
    row_tile, column_tile = grouped(tl.program_id(0) % tiles, row_tiles, column_tiles, GROUP)
    group = (tl.program_id(0) // tiles % groups).to(tl.int64)
    part = (tl.program_id(0) // tiles // groups).to(tl.int64)
    row = (row_tile * BM + tl.arange(0, BM))[:, None]
    term = (column_tile * BN + tl.arange(0, BN))[None, :]
    channel, tap = (term % channels).to(tl.int64), term // channels
    here, there = row < rows, tap < TAPS
    td, th, tw = axes_of(tap, TAPS_H, TAPS_W)
    images = x + (group * channels + channel) * source_c
    gradients = grad + (group * rows + row) * grad_c
    first = part * part_positions
    last = tl.minimum(first + part_positions, positions)
    sums = tl.zeros([BM, BN], ACC)
    for begin in range(first, last, BK):
        position = begin + tl.arange(0, BK)
        real = position < last
        n, d, h, w = locate(position.to(tl.int32), depth, height, width)
        at = n * grad_n + (position - n * depth * height * width) * grad_p
        left = tl.load(gradients + at[None, :], mask=here & real[None, :], other=0)
        at, inside = source_of(
            d[:, None], h[:, None], w[:, None], td, th, tw,
            source_depth, source_height, source_width, first_d, first_h, first_w,
            STEP_D, STEP_H, STEP_W, PACE_D, PACE_H, PACE_W, EVERY_D, EVERY_H, EVERY_W,
        )  # fmt: skip
        from_source = images + n[:, None] * source_n + at * source_p
        right = tl.load(from_source, mask=inside & there & real[:, None], other=0)
        sums = multiply_add(left, right, sums, PRECISION)
    to = out + part * out_part + group * out_group + row.to(tl.int64) * out_row
    put(to + channel * out_channel + tap.to(tl.int64) * out_tap, sums, here & there)


@triton.jit
def add_parts(
    parts, out, count, part_count, rows, channels, taps, out_group, out_row, out_channel, out_tap,
    ACC: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The weight from its parts, each dense in the order (group, row, tap, channel), one after the other."""
    element, there = elements(count, BLOCK, WIDE)
    total = tl.zeros([BLOCK], ACC)
    for part in range(0, part_count):
        total += tl.load(parts + tl.cast(part, tl.int64) * count + element, mask=there, other=0)
    group, row, tap, channel = place(element, rows, channels, taps)
    put(out + group * out_group + row * out_row + channel * out_channel + tap * out_tap, total, there)
