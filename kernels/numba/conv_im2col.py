"""Convolution as a matrix product (im2col): of the weight, a row per computed channel and a column per term (channel
and tap), and of the gathered elements, a row per term and a column per position.

The product is never whole in memory: a thread computes a tile of channels and positions at a time, from panels of
gathered elements that stay in its L2 cache, and writes it where it belongs with bias, residual and relu. Gathering
costs a read and a write of each element and tap for every ROWS channels. grad_input is the same with the roles of input
and output exchanged, phase by phase where the stride is not 1 (conv_phases.py). In grad_weight the gradient's elements
are the left matrix, and terms the columns.

A panel lies as one of two products wants it (``in_rows``, chosen in conv_tiling.py): the columns of the product are
long rows of it (product.py), or what is summed is (row_products.py).
"""

from __future__ import annotations

from typing import NamedTuple

from numba import prange

from .compiled import inner, kernel
from .conv_gather import copy, gather, locate, next_row, tap_of
from .product import clear, multiply
from .row_products import multiply_rows
from .sharing import share

LINES = 16  # rows of a weight that are arranged together
PITCH = 16  # elements that a row of a tile is longer than it needs to be: rows 4 KB apart would share few cache lines


class Tiling(NamedTuple):
    """Sizes of a tile and its panel, how many tiles there are along each side, and how the panel lies."""

    rows: int
    depth: int
    columns: int
    row_blocks: int
    column_blocks: int
    in_rows: bool


class Residual(NamedTuple):
    """Strides of the residual."""

    n: int
    c: int
    d: int
    h: int
    w: int


@kernel
def image(threads, x, weight, y, bias, residual, workspace, relu, g, at_weight, at_residual, tiling):
    """forward and grad_input. ``bias`` and ``residual`` are empty where there is none. A thread uses rows * (columns +
    PITCH) elements of the workspace, and those of its panel."""
    tiles = g.groups * tiling.row_blocks * tiling.column_blocks
    for thread in prange(threads):
        begin, end = share(tiles, thread, threads)
        _tiles(begin, end, thread, x, weight, y, bias, residual, workspace, relu, g, at_weight, at_residual, tiling)


@inner
def _tiles(begin, end, thread, x, weight, y, bias, residual, workspace, relu, g, at_weight, at_residual, tiling):
    pitch = tiling.columns + PITCH
    term_step, position_step, panel_elements = _panel(tiling)
    tile = thread * (tiling.rows * pitch + panel_elements)
    panel = tile + tiling.rows * pitch
    positions = g.images * g.depth * g.height * g.width
    terms = g.channels * g.taps_d * g.taps_h * g.taps_w
    for item in range(begin, end):
        row = item % tiling.row_blocks * tiling.rows
        position = item // tiling.row_blocks % tiling.column_blocks * tiling.columns
        group = item // tiling.row_blocks // tiling.column_blocks
        rows, columns = min(tiling.rows, g.rows - row), min(tiling.columns, positions - position)
        clear(workspace, tile, rows * pitch)
        for term in range(0, terms, tiling.depth):
            depth = min(tiling.depth, terms - term)
            gather(x, g, group, term, depth, position, columns, workspace, panel, term_step, position_step)
            at = group * at_weight.group + row * at_weight.row + term * at_weight.term
            _add_product(weight, at, at_weight.row, at_weight.term, rows, depth, columns, workspace, panel, tile,
                         tiling)  # fmt: skip
        channel = group * g.rows + row
        _write(workspace, tile, pitch, channel, rows, position, columns, y, bias, residual, relu, g, at_residual)


@inner
def _panel(tiling):
    """(step from a term of its sums to the next, step from a column to the next, elements) of a panel."""
    if tiling.in_rows:
        return 1, tiling.depth + PITCH, tiling.columns * (tiling.depth + PITCH)
    return tiling.columns + PITCH, 1, tiling.depth * (tiling.columns + PITCH)


@inner
def _add_product(left, at, row, column, rows, depth, columns, workspace, panel, tile, tiling):
    """The tile += the left matrix (rows x depth) times the panel (depth x columns)."""
    pitch = tiling.columns + PITCH
    if tiling.in_rows:
        multiply_rows(left, at, row, rows, workspace, panel, tiling.depth + PITCH, columns, depth, workspace, tile,
                      pitch)  # fmt: skip
    else:
        multiply(left, at, row, column, rows, workspace, panel, pitch, depth, workspace, tile, pitch, columns)


@inner
def _write(tiles, tile, pitch, channel, rows, position, columns, y, bias, residual, relu, g, at_residual):
    n, d, h, w = locate(position, g)
    j = 0
    while j < columns:
        count = min(g.width - w, columns - j)
        at = n * g.at_n + channel * g.at_c + d * g.at_d + h * g.at_h + w * g.at_w
        other = n * at_residual.n + channel * at_residual.c + d * at_residual.d + h * at_residual.h + w * at_residual.w
        if residual.size > 0:
            _add_residual(tiles, tile + j, pitch, rows, count, residual, other, at_residual.c, at_residual.w)
        if bias.size > 0:
            _add_bias(tiles, tile + j, pitch, rows, count, bias, channel)
        _store(tiles, tile + j, pitch, rows, count, relu, y, at, g.at_c, g.at_w)
        j += count
        n, d, h = next_row(n, d, h, g)
        w = 0


@inner
def _add_bias(tiles, tile, pitch, rows, count, bias, channel):
    for i in range(rows):
        row = tiles[tile + i * pitch : tile + i * pitch + count]
        for j in range(count):
            row[j] += bias[channel + i]


@inner
def _add_residual(tiles, tile, pitch, rows, count, residual, at, row_step, step):
    for i in range(rows):
        row = tiles[tile + i * pitch : tile + i * pitch + count]
        for j in range(count):
            row[j] += residual[at + i * row_step + j * step]


@inner
def _store(tiles, tile, pitch, rows, count, relu, y, at, row_step, step):
    """Along whichever index is contiguous in memory."""
    zero = y.dtype.type(0)
    if step == 1:
        for i in range(rows):
            row = tiles[tile + i * pitch : tile + i * pitch + count]
            target = y[at + i * row_step : at + i * row_step + count]
            for j in range(count):
                target[j] = zero if relu and row[j] < zero else row[j]
    else:
        for j in range(count):
            for i in range(rows):
                value = tiles[tile + i * pitch + j]
                y[at + i * row_step + j * step] = zero if relu and value < zero else value


@kernel
def grad_weight(threads, x, grad, out, workspace, g, out_row, out_channel, out_d, out_h, out_w, in_order, tiling):
    """``tiling``: rows and columns of out (channels of the gradient, terms) per tile; depth, positions per panel.
    ``in_order``: terms follow each other in out. A thread uses the elements of the workspace that :func:`image` does,
    and rows * (depth + PITCH)."""
    tiles = g.groups * tiling.row_blocks * tiling.column_blocks
    strides = (out_row, out_channel, out_d, out_h, out_w)
    for thread in prange(threads):
        begin, end = share(tiles, thread, threads)
        _weight_tiles(begin, end, thread, x, grad, out, workspace, g, strides, in_order, tiling)


@inner
def _weight_tiles(begin, end, thread, x, grad, out, workspace, g, strides, in_order, tiling):
    pitch, left_pitch = tiling.columns + PITCH, tiling.depth + PITCH
    position_step, term_step, panel_elements = _panel(tiling)
    tile = thread * (tiling.rows * (pitch + left_pitch) + panel_elements)
    left = tile + tiling.rows * pitch
    panel = left + tiling.rows * left_pitch
    positions = g.images * g.depth * g.height * g.width
    terms = g.channels * g.taps_d * g.taps_h * g.taps_w
    for item in range(begin, end):
        row = item % tiling.row_blocks * tiling.rows
        term = item // tiling.row_blocks % tiling.column_blocks * tiling.columns
        group = item // tiling.row_blocks // tiling.column_blocks
        rows, columns = min(tiling.rows, g.rows - row), min(tiling.columns, terms - term)
        clear(workspace, tile, rows * pitch)
        for position in range(0, positions, tiling.depth):
            depth = min(tiling.depth, positions - position)
            _gather_gradient(grad, g, group * g.rows + row, rows, position, depth, workspace, left, left_pitch)
            gather(x, g, group, term, columns, position, depth, workspace, panel, term_step, position_step)
            _add_product(workspace, left, left_pitch, 1, rows, depth, columns, workspace, panel, tile, tiling)
        first = (group * g.rows + row) * strides[0]
        if in_order:
            for i in range(rows):
                copy(workspace, tile + i * pitch, 1, out, first + i * strides[0] + term, 1, columns)
        else:
            for j in range(columns):
                c, t, r, s = tap_of(term + j, g)
                at = first + c * strides[1] + t * strides[2] + r * strides[3] + s * strides[4]
                copy(workspace, tile + j, pitch, out, at, strides[0], rows)


@inner
def _gather_gradient(grad, g, channel, rows, position, columns, panel, panel_at, pitch):
    """The gradient's elements at consecutive positions, a row per channel."""
    for i in range(rows):
        n, d, h, w = locate(position, g)
        j = 0
        while j < columns:
            count = min(g.width - w, columns - j)
            at = n * g.at_n + (channel + i) * g.at_c + d * g.at_d + h * g.at_h + w * g.at_w
            copy(grad, at, g.at_w, panel, panel_at + i * pitch + j, 1, count)
            j += count
            n, d, h = next_row(n, d, h, g)
            w = 0


@kernel
def arrange(threads, weight, prepared, groups, rows, channels, d, h, w, at_group, at_row, at_channel, at_d, at_h, at_w):
    """The weight as the product reads it: (group, row, term), dense. LINES rows together, which in grad_input are
    neighbours in memory, so that each of its cache lines is read once."""
    blocks = -(-rows // LINES)
    for thread in prange(threads):
        begin, end = share(groups * blocks, thread, threads)
        for block in range(begin, end):
            group, first = block // blocks, block % blocks * LINES
            for c in range(channels):
                for row in range(first, min(first + LINES, rows)):
                    from_ = group * at_group + row * at_row + c * at_channel
                    to = ((group * rows + row) * channels + c) * d * h * w
                    for i in range(d):
                        for j in range(h):
                            for k in range(w):
                                prepared[to] = weight[from_ + i * at_d + j * at_h + k * at_w]
                                to += 1
