"""Sums over each channel of an image, for the norms: how its elements are walked, whatever the layout.

A thread takes a few channels at a time. Where the elements of a channel lie one after the other (nchw) it sums row by
row; where the channels of a pixel do (nhwc) it sums BLOCK channels of a pixel together, so that no cache line is read
twice. Parts of at most CHUNK terms, or of one row in nhwc, are summed on their own and then added in float64: a sum of
many terms one by one would lose digits.
"""

from __future__ import annotations

from typing import NamedTuple

from numpy.lib.stride_tricks import as_strided

from .compiled import inner, summed

CHUNK = 512
BLOCK = 32  # channels that are summed together in nhwc


class Image(NamedTuple):
    """Sizes and strides, in elements, of the tensors of a norm: the input x, the output y (or its gradient), the
    residual z. ``block`` channels are walked together."""

    n: int
    c: int
    d: int
    h: int
    w: int
    x_n: int
    x_c: int
    x_d: int
    x_h: int
    x_w: int
    y_n: int
    y_c: int
    y_d: int
    y_h: int
    y_w: int
    z_n: int
    z_c: int
    z_d: int
    z_h: int
    z_w: int
    block: int


@inner
def row_offsets(row, g):
    """Where a row of positions (an image, a depth and a height) begins in x, y and z, at channel 0."""
    n, d, h = row, 0, 0
    if g.d > 1 or g.h > 1:  # divisions take as long as a short row
        n, d, h = row // g.h // g.d, row // g.h % g.d, row % g.h
    x = n * g.x_n + d * g.x_d + h * g.x_h
    y = n * g.y_n + d * g.y_d + h * g.y_h
    return x, y, n * g.z_n + d * g.z_d + h * g.z_h


@inner
def add_parts(totals, parts):
    """totals += parts, and zeros in ``parts`` for the next row."""
    for i in range(totals.size):
        totals[i] += parts[i]
        parts[i] = 0


@inner
def strided_row(x, at, step, count):
    """``count`` elements of x, ``step`` apart (0: the same again and again); none of an array that is not there."""
    return as_strided(x[at:], (count if x.size > 0 else 0,), (step * x.itemsize,))


@summed
def row_sum(row):
    """The sum of a row's elements. Compiled for contiguous rows and again for all others."""
    total = row.dtype.type(0)
    for i in range(row.size):
        total += row[i]
    return total
