"""Max pooling and its gradient, both by gathering: each output looks at its window, each input at its windows.

Of equal values the first counts, of NaN the last; where all are -inf, the first position. Indices count within the
spatial extent of the input, offsets (one byte) within the window, its elements in the padding included. The gradient
reads an index or offset for every window that an element lies in, and adds in their order: no atomics, the same result
every time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .language import put
from .windows import axes, begin, elements, end, first_window, last_window, locate, number


@triton.jit
def forward(
    x, y, indices, count, channels, positions,
    depth, height, width, out_depth, out_height, out_width, taps_d, taps_h, taps_w,
    x_n, x_c, x_p, y_n, y_c, y_p,
    STRIDE_D: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PADDING_D: tl.constexpr, PADDING_H: tl.constexpr, PADDING_W: tl.constexpr,
    DILATION_D: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    EXTENT_D: tl.constexpr, EXTENT_H: tl.constexpr, EXTENT_W: tl.constexpr,
    ADAPTIVE: tl.constexpr, OFFSETS: tl.constexpr, ACC: tl.constexpr, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    element, there = elements(count, BLOCK, WIDE)
    n, c, position = locate(element, channels, positions, CHANNELS_LAST)
    od, oh, ow = axes(position, out_height, out_width)
    first_d = begin(od, depth, out_depth, STRIDE_D, PADDING_D, ADAPTIVE)
    first_h = begin(oh, height, out_height, STRIDE_H, PADDING_H, ADAPTIVE)
    first_w = begin(ow, width, out_width, STRIDE_W, PADDING_W, ADAPTIVE)
    end_d = tl.minimum(end(od, depth, out_depth, STRIDE_D, PADDING_D, EXTENT_D, ADAPTIVE), depth)
    end_h = tl.minimum(end(oh, height, out_height, STRIDE_H, PADDING_H, EXTENT_H, ADAPTIVE), height)
    end_w = tl.minimum(end(ow, width, out_width, STRIDE_W, PADDING_W, EXTENT_W, ADAPTIVE), width)
    plane = x + n * x_n + c * x_c
    best = tl.full([BLOCK], float("-inf"), ACC)
    index = tl.full([BLOCK], -1, tl.int32)
    for td in range(0, taps_d):
        d = first_d + td * DILATION_D
        inside_d = there & (d >= 0) & (d < end_d)
        for th in range(0, taps_h):
            h = first_h + th * DILATION_H
            inside_h = inside_d & (h >= 0) & (h < end_h)
            for tw in range(0, taps_w):
                w = first_w + tw * DILATION_W
                inside = inside_h & (w >= 0) & (w < end_w)
                at = (d * height + h) * width + w
                value = tl.load(plane + at.to(tl.int64) * x_p, mask=inside, other=0).to(ACC)
                better = inside & ((value > best) | (value != value) | (index < 0))
                best = tl.where(better, value, best)
                name = (td * taps_h + th) * taps_w + tw if OFFSETS else at
                index = tl.where(better, name, index)
    to = n * y_n + c * y_c + position.to(tl.int64) * y_p
    put(y + to, best, there)
    if indices is not None:
        tl.store(indices + to, index.to(indices.dtype.element_ty), mask=there)


@triton.jit
def gradient(
    grad, indices, out, count, channels, positions,
    depth, height, width, out_depth, out_height, out_width, windows_d, windows_h, windows_w,
    x_n, x_c, x_p, y_n, y_c, y_p,
    STRIDE_D: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PADDING_D: tl.constexpr, PADDING_H: tl.constexpr, PADDING_W: tl.constexpr,
    DILATION_D: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    FILTER_H: tl.constexpr, FILTER_W: tl.constexpr,
    EXTENT_D: tl.constexpr, EXTENT_H: tl.constexpr, EXTENT_W: tl.constexpr,
    ADAPTIVE: tl.constexpr, OFFSETS: tl.constexpr, ACC: tl.constexpr, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
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
        if OFFSETS:
            name_d, is_element = number(d, od, STRIDE_D, PADDING_D, DILATION_D)
            inside_d = inside_d & is_element
        for th in range(0, windows_h):
            oh = first_h + th
            inside_h = inside_d & (oh <= last_h)
            if OFFSETS:
                name_h, is_element = number(h, oh, STRIDE_H, PADDING_H, DILATION_H)
                inside_h = inside_h & is_element
            for tw in range(0, windows_w):
                ow = first_w + tw
                inside = inside_h & (ow <= last_w)
                at = plane + ((od * out_height + oh) * out_width + ow).to(tl.int64) * y_p
                name = position
                if OFFSETS:
                    name_w, is_element = number(w, ow, STRIDE_W, PADDING_W, DILATION_W)
                    inside = inside & is_element
                    name = (name_d * FILTER_H + name_h) * FILTER_W + name_w
                taken = inside & (tl.load(indices + at, mask=inside, other=0) == name)
                total += tl.load(grad + at, mask=taken, other=0).to(ACC)
    put(out + n * x_n + c * x_c + position.to(tl.int64) * x_p, total, there)
