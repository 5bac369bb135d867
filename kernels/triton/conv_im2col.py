"""Convolution as a matrix product of columns that are written to memory first (im2col), then multiplied by gemm.py.

A row of ``columns`` is a position, its elements are what the position meets at the taps and channels of its group: as
many times the image as the filter has taps, which is what this costs. As many images at a time as the workspace holds.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gather import axes_of, locate, place, source_of
from .language import put
from .windows import elements


@triton.jit(do_not_specialize=["first_image", "group"])
def gather(
    source, columns, first_image, group, channels, positions, terms, depth, height, width,
    source_depth, source_height, source_width, first_d, first_h, first_w, source_n, source_c, source_p,
    TAPS_D: tl.constexpr, TAPS_H: tl.constexpr, TAPS_W: tl.constexpr,
    STEP_D: tl.constexpr, STEP_H: tl.constexpr, STEP_W: tl.constexpr,
    PACE_D: tl.constexpr, PACE_H: tl.constexpr, PACE_W: tl.constexpr,
    EVERY_D: tl.constexpr, EVERY_H: tl.constexpr, EVERY_W: tl.constexpr,
    BP: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """columns[position, term] of one group, for ``positions`` of the images from ``first_image`` on."""
    tiles = tl.cdiv(positions, BP)
    position = (tl.program_id(0) % tiles * BP + tl.arange(0, BP))[:, None]
    term = (tl.program_id(0) // tiles * BT + tl.arange(0, BT))[None, :]
    there = (position < positions) & (term < terms)
    n, d, h, w = locate(position, depth, height, width)
    td, th, tw = axes_of(term // channels, TAPS_H, TAPS_W)
    at, inside = source_of(
        d, h, w, td, th, tw, source_depth, source_height, source_width, first_d, first_h, first_w,
        STEP_D, STEP_H, STEP_W, PACE_D, PACE_H, PACE_W, EVERY_D, EVERY_H, EVERY_W,
    )  # fmt: skip
    channel = (term % channels).to(tl.int64) + tl.cast(group, tl.int64) * channels
    from_source = source + (n + first_image) * source_n + channel * source_c + at * source_p
    value = tl.load(from_source, mask=there & inside, other=0)
    tl.store(columns + position.to(tl.int64) * terms + term, value, mask=there)


@triton.jit
def arrange(
    weight, arranged, count, rows, channels, taps,
    weight_group, weight_row, weight_channel, weight_tap,
    WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The weight as dense matrices (group, row, term)."""
    element, there = elements(count, BLOCK, WIDE)
    group, row, tap, channel = place(element, rows, channels, taps)
    at = weight + group * weight_group + row * weight_row + channel * weight_channel + tap * weight_tap
    tl.store(arranged + element, tl.load(at, mask=there, other=0), mask=there)


@triton.jit
def scatter(
    arranged, weight, count, rows, channels, taps,
    weight_group, weight_row, weight_channel, weight_tap,
    WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The other way round: a weight from dense matrices (group, row, term) of sums."""
    element, there = elements(count, BLOCK, WIDE)
    group, row, tap, channel = place(element, rows, channels, taps)
    at = weight + group * weight_group + row * weight_row + channel * weight_channel + tap * weight_tap
    put(at, tl.load(arranged + element, mask=there, other=0), there)
