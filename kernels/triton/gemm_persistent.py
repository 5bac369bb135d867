"""One matrix product by as many programs as the GPU has multiprocessors, of matrices that descriptors describe.

As gemm.py, but a program computes one tile after the other instead of ending with the first, so that nothing is set up
again; and the copy engine of Hopper (TMA) brings whole blocks of the operands and takes those of the result, addresses
and bounds included, which leaves registers and issue slots to the products. It takes 16-bit operands whose rows or
columns are contiguous and begin at multiples of 16 bytes; of a result whose rows are not, threads store the elements.
Addresses that are no multiples of 16 a descriptor does not take: there (DESCRIBED false) threads load them, too.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gemm import finished
from .language import grouped, multiply_add, put, rounded


@triton.jit(do_not_specialize=["alpha", "beta"])
def product(
    a, b, out, bias, residual, alpha: tl.int64, beta: tl.int64, m, n, k,
    a_row, a_column, b_row, b_column, out_row, out_column, residual_row, residual_column,
    DESCRIBED: tl.constexpr, OUT_DESCRIBED: tl.constexpr, A_IS_COLUMNS: tl.constexpr, B_IS_COLUMNS: tl.constexpr,
    PROGRAMS: tl.constexpr, SCALED: tl.constexpr, RELU: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """DESCRIBED: ``a`` and ``b`` are descriptors, of the transposed matrix where its columns are what is contiguous."""
    row_tiles, column_tiles = tl.cdiv(m, BM), tl.cdiv(n, BN)
    for tile in range(tl.program_id(0), row_tiles * column_tiles, PROGRAMS):
        row_tile, column_tile = grouped(tile, row_tiles, column_tiles, GROUP)
        row, column = row_tile * BM, column_tile * BN
        sums = tl.zeros([BM, BN], ACC)
        for depth in range(0, k, BK):
            if DESCRIBED:
                left = a.load([depth, row]).T if A_IS_COLUMNS else a.load([row, depth])
                right = b.load([column, depth]).T if B_IS_COLUMNS else b.load([depth, column])
            else:
                left = loaded(a, row, depth, m, k, a_row, a_column, BM, BK)
                right = loaded(b, depth, column, k, n, b_row, b_column, BK, BN)
            sums = multiply_add(left, right, sums, PRECISION)
        rows = (row + tl.arange(0, BM)).to(tl.int64)[:, None]
        columns = (column + tl.arange(0, BN)).to(tl.int64)[None, :]
        sums = finished(
            sums, bias, residual, alpha, beta, 0, rows, columns, m, n, 0, residual_row, residual_column,
            SCALED, RELU, ACC,
        )  # fmt: skip
        if OUT_DESCRIBED:
            out.store([row, column], rounded(sums, out.dtype))
        else:
            put(out + rows * out_row + columns * out_column, sums, (rows < m) & (columns < n))


@triton.jit
def loaded(
    matrix, first_row, first_column, rows, columns, by_row, by_column, HEIGHT: tl.constexpr, WIDTH: tl.constexpr
):
    """A block of a matrix, with zeros beyond its end."""
    row = (first_row + tl.arange(0, HEIGHT)).to(tl.int64)[:, None]
    column = (first_column + tl.arange(0, WIDTH)).to(tl.int64)[None, :]
    return tl.load(matrix + row * by_row + column * by_column, mask=(row < rows) & (column < columns), other=0)
