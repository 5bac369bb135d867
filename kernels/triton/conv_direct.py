"""Convolution term by term, without a matrix product: for depthwise filters and groups or images of few channels, where
tiles of tensor cores would be mostly empty.

image (forward and grad_input): a program computes BP positions of BR channels, one filter tap and channel at a time;
what the taps of neighbouring positions read in common comes out of the caches. grad_weight: a program computes one tap
and channel of BR filters, over all positions, in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .conv_epilogue import finish
from .gather import axes_of, locate, source_of
from .language import put


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
    DENSE: tl.constexpr, RELU: tl.constexpr, ACC: tl.constexpr, BP: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """DENSE: there is one group, so that all channels of a program read the same."""
    tiles = tl.cdiv(positions, BP)
    position = (tl.program_id(0) % tiles * BP + tl.arange(0, BP))[:, None]
    channel = (tl.program_id(0) // tiles * BR + tl.arange(0, BR)).to(tl.int64)[None, :]
    here, there = position < positions, channel < groups * rows
    n, d, h, w = locate(position, depth, height, width)
    if DENSE:
        images = source + n * source_n
        filters = weight + channel * weight_row
        known = here
    else:
        images = source + n * source_n + channel // rows * channels * source_c
        filters = weight + channel // rows * weight_group + channel % rows * weight_row
        known = here & there
    sums = tl.zeros([BP, BR], ACC)
    for tap in range(0, TAPS_D * TAPS_H * TAPS_W):
        td, th, tw = axes_of(tap, TAPS_H, TAPS_W)
        at, inside = source_of(
            d, h, w, td, th, tw, source_depth, source_height, source_width, first_d, first_h, first_w,
            STEP_D, STEP_H, STEP_W, PACE_D, PACE_H, PACE_W, EVERY_D, EVERY_H, EVERY_W,
        )  # fmt: skip
        for term in range(0, channels):
            c = tl.cast(term, tl.int64)
            value = tl.load(images + at * source_p + c * source_c, mask=inside & known, other=0).to(ACC)
            factor = tl.load(filters + c * weight_channel + tl.cast(tap, tl.int64) * weight_tap, mask=there, other=0)
            sums += value * factor.to(ACC)
    at_position = position.to(tl.int64) - n * depth * height * width
    finish(
        sums, out, bias, residual, n, channel, at_position, here, there, out_n, out_c, out_p,
        residual_n, residual_c, residual_p, RELU,
    )  # fmt: skip


@triton.jit
def grad_weight(
    x, grad, out, groups, rows, channels, positions, depth, height, width,
    source_depth, source_height, source_width, first_d, first_h, first_w,
    source_n, source_c, source_p, grad_n, grad_c, grad_p, out_group, out_row, out_channel, out_tap,
    TAPS_D: tl.constexpr, TAPS_H: tl.constexpr, TAPS_W: tl.constexpr,
    STEP_D: tl.constexpr, STEP_H: tl.constexpr, STEP_W: tl.constexpr,
    PACE_D: tl.constexpr, PACE_H: tl.constexpr, PACE_W: tl.constexpr,
    EVERY_D: tl.constexpr, EVERY_H: tl.constexpr, EVERY_W: tl.constexpr,
    ACC: tl.constexpr, BP: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    TAPS: tl.constexpr = TAPS_D * TAPS_H * TAPS_W
    tap = tl.program_id(0) % TAPS
    c = (tl.program_id(0) // TAPS % channels).to(tl.int64)
    filter = (tl.program_id(0) // TAPS // channels * BR + tl.arange(0, BR)).to(tl.int64)[None, :]
    there = filter < groups * rows
    td, th, tw = axes_of(tap, TAPS_H, TAPS_W)
    images = x + (filter // rows * channels + c) * source_c
    gradients = grad + filter * grad_c
    sums = tl.zeros([BP, BR], ACC)
    for first in range(0, positions, BP):
        position = (first + tl.arange(0, BP))[:, None]
        n, d, h, w = locate(position, depth, height, width)
        at, inside = source_of(
            d, h, w, td, th, tw, source_depth, source_height, source_width, first_d, first_h, first_w,
            STEP_D, STEP_H, STEP_W, PACE_D, PACE_H, PACE_W, EVERY_D, EVERY_H, EVERY_W,
        )  # fmt: skip
        met = inside & there & (position < positions)
        value = tl.load(images + n * source_n + at * source_p, mask=met, other=0).to(ACC)
        at_position = position.to(tl.int64) - n * depth * height * width
        slope = tl.load(gradients + n * grad_n + at_position * grad_p, mask=met, other=0).to(ACC)
        sums += value * slope
    to = out + filter // rows * out_group + filter % rows * out_row + c * out_channel
    put(to + tl.cast(tap, tl.int64) * out_tap, tl.sum(sums, 0)[None, :], there)
