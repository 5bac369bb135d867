"""gemm: out = relu(alpha * a @ b + beta * residual + bias) for every matrix of a batch.

The result is cut into tiles; a thread computes a tile in its workspace, from panels of b whose rows are contiguous
(b itself where they are, else a copy), and then writes it where it belongs. A copy of b costs a read and a write of
each element for every ROWS rows of a: little beside the product where there are many rows, and for one row as much as
reading b does; ``prepare`` makes it once for a b that stays. Few rows of a need no copy where they and the columns of b
are contiguous, as in a linear layer (row_products.py); many would meet columns whose distance shares few cache lines.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import prange

from .compiled import inner, kernel
from .product import clear, multiply
from .row_products import multiply_rows
from .sharing import share

ROWS, DEPTH, COLUMNS = 256, 128, 512  # of a tile and its panel: three quarters of a megabyte in f32
FEW_ROWS = 64  # of a, for which a copy of b would not pay


class Matrices(NamedTuple):
    """Sizes, and the strides of (batch, row, column) of each matrix, in elements."""

    batch: int
    m: int
    n: int
    k: int
    a_batch: int
    a_row: int
    a_column: int
    b_batch: int
    b_row: int
    b_column: int
    out_batch: int
    out_row: int
    out_column: int
    residual_batch: int
    residual_row: int
    residual_column: int


class Tiling(NamedTuple):
    """How the result is cut: the sizes of a tile and its panel, and how many there are. ``in_rows``: rows of a meet
    columns of b where they lie."""

    rows: int
    depth: int
    columns: int
    row_blocks: int
    column_blocks: int
    in_rows: bool


@kernel
def product(threads, a, b, out, bias, residual, workspace, alpha, beta, relu, g, tiling):
    """``bias`` and ``residual`` are empty where there is none. A thread uses rows * columns + depth * columns elements
    of the workspace."""
    tiles = g.batch * tiling.row_blocks * tiling.column_blocks
    for thread in prange(threads):
        begin, end = share(tiles, thread, threads)
        _tiles(begin, end, thread, a, b, out, bias, residual, workspace, alpha, beta, relu, g, tiling)


@inner
def _tiles(begin, end, thread, a, b, out, bias, residual, workspace, alpha, beta, relu, g, tiling):
    tile = thread * (tiling.rows + tiling.depth) * tiling.columns
    panel = tile + tiling.rows * tiling.columns
    for item in range(begin, end):
        row = item % tiling.row_blocks * tiling.rows
        column = item // tiling.row_blocks % tiling.column_blocks * tiling.columns
        batch = item // tiling.row_blocks // tiling.column_blocks
        rows, columns = min(tiling.rows, g.m - row), min(tiling.columns, g.n - column)
        clear(workspace, tile, rows * columns)
        for p in range(0, g.k, tiling.depth):
            depth = min(tiling.depth, g.k - p)
            a_at = batch * g.a_batch + row * g.a_row + p * g.a_column
            b_at = batch * g.b_batch + p * g.b_row + column * g.b_column
            if tiling.in_rows:
                multiply_rows(a, a_at, g.a_row, rows, b, b_at, g.b_column, columns, depth, workspace, tile, columns)
                continue
            right, right_at, right_row = b, b_at, g.b_row
            if g.b_column != 1:
                _pack(b, b_at, g.b_row, g.b_column, depth, columns, workspace, panel)
                right, right_at, right_row = workspace, panel, columns
            multiply(a, a_at, g.a_row, g.a_column, rows, right, right_at, right_row, depth, workspace, tile, columns,
                     columns)  # fmt: skip
        for i in range(rows):
            _write_row(i, row, rows, column, columns, batch, workspace, tile, out, bias, residual, alpha, beta, relu, g)


@inner
def _pack(b, at, row, column, rows, columns, panel, panel_at):
    """A block of b as contiguous rows."""
    for j in range(columns):
        for p in range(rows):
            panel[panel_at + p * columns + j] = b[at + p * row + j * column]


@inner
def _write_row(i, row, rows, column, columns, batch, tiles, tile, out, bias, residual, alpha, beta, relu, g):
    zero, one = out.dtype.type(0), out.dtype.type(1)
    factor, share_of_residual = out.dtype.type(alpha), out.dtype.type(beta)
    at = batch * g.out_batch + (row + i) * g.out_row + column * g.out_column
    from_ = batch * g.residual_batch + (row + i) * g.residual_row + column * g.residual_column
    for j in range(columns):
        value = tiles[tile + i * columns + j]
        if factor != one:
            value *= factor
        if residual.size > 0 and share_of_residual != zero:
            value += share_of_residual * residual[from_ + j * g.residual_column]
        if bias.size > 0:
            value += bias[column + j]
        if relu and value < zero:
            value = zero
        out[at + j * g.out_column] = value


@kernel
def prepare(threads, b, prepared, rows, columns, row, column):
    """b (rows x columns) as one dense matrix of contiguous rows."""
    for thread in prange(threads):
        begin, end = share(columns, thread, threads)
        _transpose(begin, end, b, rows, columns, row, column, prepared)


@inner
def _transpose(begin, end, b, rows, columns, row, column, prepared):
    for first in range(0, rows, 64):  # so that the lines that are written stay in the cache
        for j in range(begin, end):
            for p in range(first, min(first + 64, rows)):
                prepared[p * columns + j] = b[p * row + j * column]
