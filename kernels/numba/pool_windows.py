"""Windows of pooling: along an axis, the positions first + r * dilation that lie inside the image.

A window of the ordinary ops starts at o * stride - padding and has ``filter`` taps; the adaptive ones cut the axis into
``out`` overlapping parts, from floor(o * size / out) to ceil((o + 1) * size / out). A plan finds all of them when it is
made: a division takes as long as a window of a few elements.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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


def bounds_of(g: Pool) -> np.ndarray:
    """(first, end) of the windows along depth, then height, then width: positions first, first + dilation, ... below
    end."""
    fields = ("size", "filter", "out", "stride", "padding", "dilation")
    axes = [[getattr(g, f"{field}_{axis}") for field in fields] for axis in "dhw"]
    return np.concatenate([_along(g.adaptive, *axis) for axis in axes]).reshape(-1)


def _along(adaptive: int, size: int, filter: int, out: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    """Of shape (out, 2)."""
    o = np.arange(out)
    if adaptive:
        return np.stack([o * size // out, -(-(o + 1) * size // out)], axis=1)
    first = o * stride - padding
    end = np.minimum(first + (filter - 1) * dilation + 1, size)
    return np.stack([first + np.maximum(-(first // dilation), 0) * dilation, end], axis=1)


@inner
def windows(d, h, w, bounds, g):
    """Those of an output position along the three axes."""
    along_d, along_h, along_w = 2 * d, 2 * (g.out_d + h), 2 * (g.out_d + g.out_h + w)
    return (
        bounds[along_d], bounds[along_d + 1], bounds[along_h], bounds[along_h + 1], bounds[along_w], bounds[along_w + 1]
    )  # fmt: skip


@inner
def output_row(row, g):
    """(image, channel, depth, height) of a row of outputs."""
    h, d = row % g.out_h, row // g.out_h % g.out_d
    plane = row // g.out_h // g.out_d
    return plane // g.c, plane % g.c, d, h


@inner
def next_output_row(n, c, d, h, g):
    if h + 1 < g.out_h:
        return n, c, d, h + 1
    if d + 1 < g.out_d:
        return n, c, d + 1, 0
    if c + 1 < g.c:
        return n, c + 1, 0, 0
    return n + 1, 0, 0, 0


@inner
def rows_follow(g):
    """Whether the rows of a plane of the input follow each other."""
    return g.input_w == 1 and g.input_h == g.size_w


@inner
def clear_plane(x, at, g):
    """Zeros at all positions of one channel of one image."""
    for d in range(g.size_d):
        plane = at + d * g.input_d
        if rows_follow(g):
            x[plane : plane + g.size_h * g.size_w] = 0
            continue
        for h in range(g.size_h):
            for w in range(g.size_w):
                x[plane + h * g.input_h + w * g.input_w] = 0
