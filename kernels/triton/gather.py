"""Which elements of an image a convolution reads: what its kernels have in common.

All three passes pair positions with elements of a source image. Along an axis, position i meets at filter tap r the
element (i * STEP + r * PACE + first) / EVERY, where that is a whole number inside the image:
    forward and grad_weight (positions of the output, elements of the input): STEP = stride, PACE = dilation,
        first = -padding, EVERY = 1;
    grad_input (positions of the input, elements of the output's gradient): STEP = 1, PACE = -dilation, first = padding,
        EVERY = stride.
A term is a tap and a channel of the source's group, tap-major: neighbouring terms read neighbouring channels at the
same place.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def locate(position, depth, height, width):
    """(image, depth, height, width) of a position, counted through all images."""
    row = position // width
    plane = row // height
    return (plane // depth).to(tl.int64), plane % depth, row % height, position % width


@triton.jit
def axes_of(tap, TAPS_H: tl.constexpr, TAPS_W: tl.constexpr):
    """A tap along each axis."""
    return tap // (TAPS_H * TAPS_W), tap // TAPS_W % TAPS_H, tap % TAPS_W


@triton.jit
def place(element, rows, channels, taps):
    """(group, row, tap, channel) of an element of a weight in this order."""
    tap = element // channels
    row = tap // taps
    group = row // rows
    return group.to(tl.int64), (row % rows).to(tl.int64), (tap % taps).to(tl.int64), (element % channels).to(tl.int64)


@triton.jit
def met(value, size, EVERY: tl.constexpr):
    """The element along an axis from its multiple, and whether there is one."""
    if EVERY == 1:
        return value, (value >= 0) & (value < size)
    else:
        return value // EVERY, (value >= 0) & (value % EVERY == 0) & (value // EVERY < size)


@triton.jit
def source_of(
    d, h, w, td, th, tw, depth, height, width, first_d, first_h, first_w,
    STEP_D: tl.constexpr, STEP_H: tl.constexpr, STEP_W: tl.constexpr,
    PACE_D: tl.constexpr, PACE_H: tl.constexpr, PACE_W: tl.constexpr,
    EVERY_D: tl.constexpr, EVERY_H: tl.constexpr, EVERY_W: tl.constexpr,
):  # fmt: skip
    """The element that positions meet at taps, counted within its plane (depth, height, width), and whether there is
    one."""
    sd, inside_d = met(d * STEP_D + td * PACE_D + first_d, depth, EVERY_D)
    sh, inside_h = met(h * STEP_H + th * PACE_H + first_h, height, EVERY_H)
    sw, inside_w = met(w * STEP_W + tw * PACE_W + first_w, width, EVERY_W)
    return ((sd * height + sh) * width + sw).to(tl.int64), inside_d & inside_h & inside_w
