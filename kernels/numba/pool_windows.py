"""Windows of pooling: along an axis, the positions first + r * dilation that lie inside the image.

A window of the ordinary ops starts at o * stride - padding and has ``filter`` taps; the adaptive ones cut the axis into
``out`` overlapping parts, from floor(o * size / out) to ceil((o + 1) * size / out).
"""

from __future__ import annotations

from typing import NamedTuple

from .compiled import inner


class Pool(NamedTuple):
    """Sizes of a pooling; strides in elements. ``adaptive`` is 0 or 1."""

    n: int
    c: int
    size_d: int
    size_h: int
    size_w: int
    filter_d: int
    filter_h: int
    filter_w: int
    out_d: int
    out_h: int
    out_w: int
    stride_d: int
    stride_h: int
    stride_w: int
    padding_d: int
    padding_h: int
    padding_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int
    adaptive: int
    input_n: int
    input_c: int
    input_d: int
    input_h: int
    input_w: int
    output_n: int
    output_c: int
    output_d: int
    output_h: int
    output_w: int


@inner
def window(o, size, filter, out, stride, padding, dilation, adaptive):
    """(first, end) of window o: its positions are first, first + dilation, ... below end."""
    if adaptive:
        return o * size // out, -(-(o + 1) * size // out)
    first = o * stride - padding
    end = min(first + (filter - 1) * dilation + 1, size)
    if first < 0:
        first += -(first // dilation) * dilation
    return first, end


@inner
def windows(d, h, w, g):
    """Those of an output position along the three axes."""
    d_first, d_end = window(d, g.size_d, g.filter_d, g.out_d, g.stride_d, g.padding_d, g.dilation_d, g.adaptive)
    h_first, h_end = window(h, g.size_h, g.filter_h, g.out_h, g.stride_h, g.padding_h, g.dilation_h, g.adaptive)
    w_first, w_end = window(w, g.size_w, g.filter_w, g.out_w, g.stride_w, g.padding_w, g.dilation_w, g.adaptive)
    return d_first, d_end, h_first, h_end, w_first, w_end


@inner
def clear_plane(x, at, g):
    """Zeros at all positions of one channel of one image."""
    for d in range(g.size_d):
        for h in range(g.size_h):
            row = at + d * g.input_d + h * g.input_h
            for w in range(g.size_w):
                x[row + w * g.input_w] = 0
