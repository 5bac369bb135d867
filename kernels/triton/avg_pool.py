"""Average pooling and its gradient, by gathering: each output adds its window, each input what its windows give it.

The divisor is the one given, or the window's size, with the padding (up to the right padding, not beyond) or without.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .language import put
from .windows import axes, begin, elements, end, first_window, last_window, locate


@triton.jit
def forward(
    x, y, count, channels, positions,
    depth, height, width, out_depth, out_height, out_width, taps_d, taps_h, taps_w,
    x_n, x_c, x_p, y_n, y_c, y_p,
    STRIDE_D: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PADDING_D: tl.constexpr, PADDING_H: tl.constexpr, PADDING_W: tl.constexpr,
    EXTENT_D: tl.constexpr, EXTENT_H: tl.constexpr, EXTENT_W: tl.constexpr, PADDED: tl.constexpr, DIVISOR: tl.constexpr,
    ADAPTIVE: tl.constexpr, ACC: tl.constexpr, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """DIVISOR 0: the window's size, with the padding if PADDED."""
    element, there = elements(count, BLOCK, WIDE)
    n, c, position = locate(element, channels, positions, CHANNELS_LAST)
    od, oh, ow = axes(position, out_height, out_width)
    first_d = begin(od, depth, out_depth, STRIDE_D, PADDING_D, ADAPTIVE)
    first_h = begin(oh, height, out_height, STRIDE_H, PADDING_H, ADAPTIVE)
    first_w = begin(ow, width, out_width, STRIDE_W, PADDING_W, ADAPTIVE)
    end_d = end(od, depth, out_depth, STRIDE_D, PADDING_D, EXTENT_D, ADAPTIVE)
    end_h = end(oh, height, out_height, STRIDE_H, PADDING_H, EXTENT_H, ADAPTIVE)
    end_w = end(ow, width, out_width, STRIDE_W, PADDING_W, EXTENT_W, ADAPTIVE)
    plane = x + n * x_n + c * x_c
    total = tl.zeros([BLOCK], ACC)
    for td in range(0, taps_d):
        d = first_d + td
        inside_d = there & (d >= 0) & (d < tl.minimum(end_d, depth))
        for th in range(0, taps_h):
            h = first_h + th
            inside_h = inside_d & (h >= 0) & (h < tl.minimum(end_h, height))
            for tw in range(0, taps_w):
                w = first_w + tw
                inside = inside_h & (w >= 0) & (w < tl.minimum(end_w, width))
                at = (d * height + h) * width + w
                total += tl.load(plane + at.to(tl.int64) * x_p, mask=inside, other=0).to(ACC)
    if DIVISOR == 0:
        counted_d = counted(first_d, end_d, depth, PADDING_D, PADDED)
        counted_h = counted(first_h, end_h, height, PADDING_H, PADDED)
        size = counted_d * counted_h * counted(first_w, end_w, width, PADDING_W, PADDED)
        total /= tl.where(there, size, 1).to(ACC)
    else:
        total /= DIVISOR
    put(y + n * y_n + c * y_c + position.to(tl.int64) * y_p, total, there)


@triton.jit
def gradient(
    grad, out, count, channels, positions,
    depth, height, width, out_depth, out_height, out_width, windows_d, windows_h, windows_w,
    x_n, x_c, x_p, y_n, y_c, y_p,
    STRIDE_D: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PADDING_D: tl.constexpr, PADDING_H: tl.constexpr, PADDING_W: tl.constexpr,
    EXTENT_D: tl.constexpr, EXTENT_H: tl.constexpr, EXTENT_W: tl.constexpr, PADDED: tl.constexpr, DIVISOR: tl.constexpr,
    ADAPTIVE: tl.constexpr, ACC: tl.constexpr, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``windows``: how many an element may lie in, at most, along each axis."""
    element, there = elements(count, BLOCK, WIDE)
    n, c, position = locate(element, channels, positions, CHANNELS_LAST)
    d, h, w = axes(position, height, width)
    first_d = first_window(d, depth, out_depth, STRIDE_D, PADDING_D, EXTENT_D, ADAPTIVE)
    first_h = first_window(h, height, out_height, STRIDE_H, PADDING_H, EXTENT_H, ADAPTIVE)
    first_w = first_window(w, width, out_width, STRIDE_W, PADDING_W, EXTENT_W, ADAPTIVE)
    last_d = last_window(d, depth, out_depth, STRIDE_D, PADDING_D, ADAPTIVE)
    last_h = last_window(h, height, out_height, STRIDE_H, PADDING_H, ADAPTIVE)
    last_w = last_window(w, width, out_width, STRIDE_W, PADDING_W, ADAPTIVE)
    plane = n * y_n + c * y_c
    total = tl.zeros([BLOCK], ACC)
    for td in range(0, windows_d):
        od = first_d + td
        inside_d = there & (od <= last_d)
        from_d = begin(od, depth, out_depth, STRIDE_D, PADDING_D, ADAPTIVE)
        to_d = end(od, depth, out_depth, STRIDE_D, PADDING_D, EXTENT_D, ADAPTIVE)
        for th in range(0, windows_h):
            oh = first_h + th
            inside_h = inside_d & (oh <= last_h)
            from_h = begin(oh, height, out_height, STRIDE_H, PADDING_H, ADAPTIVE)
            to_h = end(oh, height, out_height, STRIDE_H, PADDING_H, EXTENT_H, ADAPTIVE)
            for tw in range(0, windows_w):
                ow = first_w + tw
                inside = inside_h & (ow <= last_w)
                at = plane + ((od * out_height + oh) * out_width + ow).to(tl.int64) * y_p
                slope = tl.load(grad + at, mask=inside, other=0).to(ACC)
                if DIVISOR == 0:
                    from_w = begin(ow, width, out_width, STRIDE_W, PADDING_W, ADAPTIVE)
                    to_w = end(ow, width, out_width, STRIDE_W, PADDING_W, EXTENT_W, ADAPTIVE)
                    size = counted(from_d, to_d, depth, PADDING_D, PADDED)
                    size *= counted(from_h, to_h, height, PADDING_H, PADDED)
                    size *= counted(from_w, to_w, width, PADDING_W, PADDED)
                    slope /= tl.where(inside, size, 1).to(ACC)
                else:
                    slope /= DIVISOR
                total += slope
    put(out + n * x_n + c * x_c + position.to(tl.int64) * x_p, total, there)


@triton.jit
def counted(first, end, size, PADDING: tl.constexpr, PADDED: tl.constexpr):
    """How many positions of a window the divisor counts along an axis."""
    if PADDED:
        return tl.minimum(end, size + PADDING) - first
    else:
        return tl.minimum(end, size) - tl.maximum(first, 0)
