"""Elements and windows of pooling: what its kernels have in common.

A program takes a block of elements of one image, in the order of its memory. Along an axis, window o begins at
o * stride - padding and has an element every ``dilation``; the adaptive ops instead split the axis into out overlapping
parts, from floor(o * size / out) to ceil((o + 1) * size / out).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def elements(count, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """The elements of a program, and which of them there are. WIDE: 31 bits are too few to count them."""
    if WIDE:
        element = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    else:
        element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    return element, element < count


@triton.jit
def locate(element, channels, positions, CHANNELS_LAST: tl.constexpr):
    """(image, channel, position) of an element, counted in the order of memory."""
    if CHANNELS_LAST:
        pixel = element // channels
        image, channel, position = pixel // positions, element % channels, pixel % positions
    else:
        plane = element // positions
        image, channel, position = plane // channels, plane % channels, element % positions
    return image.to(tl.int64), channel.to(tl.int64), position.to(tl.int32)


@triton.jit
def axes(position, height, width):
    """(depth, height, width) of a position."""
    row = position // width
    return row // height, row % height, position % width


@triton.jit
def begin(o, size, out, stride, padding, ADAPTIVE: tl.constexpr):
    """Where a window begins, perhaps in the padding."""
    if ADAPTIVE:
        return (o.to(tl.int64) * size // out).to(tl.int32)
    else:
        return o * stride - padding


@triton.jit
def end(o, size, out, stride, padding, extent, ADAPTIVE: tl.constexpr):
    """Where it ends (exclusive), perhaps beyond the input."""
    if ADAPTIVE:
        return (((o.to(tl.int64) + 1) * size + out - 1) // out).to(tl.int32)
    else:
        return o * stride - padding + extent


@triton.jit
def first_window(i, size, out, stride, padding, extent, ADAPTIVE: tl.constexpr):
    """The first of the windows whose extent an element lies in."""
    if ADAPTIVE:
        return (i.to(tl.int64) * out // size).to(tl.int32)
    else:
        return tl.maximum(i + padding - extent + stride, 0) // stride


@triton.jit
def last_window(i, size, out, stride, padding, ADAPTIVE: tl.constexpr):
    """The last of them; less than the first where there is none."""
    if ADAPTIVE:
        return (((i.to(tl.int64) + 1) * out - 1) // size).to(tl.int32)
    else:
        return tl.minimum((i + padding) // stride, out - 1)


@triton.jit
def number(i, o, stride, padding, dilation):
    """Which element of window o, which covers it, lies at position i; and whether one does, between its gaps."""
    distance = i + padding - o * stride
    return distance // dilation, distance % dilation == 0
