"""One matrix product by as many programs as the GPU has multiprocessors, with operands read by tensor descriptors.

As gemm.py, but a program computes one tile after the other instead of ending with the first, so that nothing is set up
again; and the copy engine of Hopper (TMA) brings whole blocks of the operands, addresses and bounds included, which
leaves registers and issue slots to the products. It takes 16-bit operands whose rows or columns are contiguous and
begin at multiples of 16 bytes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gemm import finish
from .language import grouped, multiply_add


@triton.jit(do_not_specialize=["alpha", "beta"])
def product(
    a, b, out, bias, residual, alpha: tl.int64, beta: tl.int64, m, n, k,
    out_row, out_column, residual_row, residual_column,
    A_IS_COLUMNS: tl.constexpr, B_IS_COLUMNS: tl.constexpr, PROGRAMS: tl.constexpr,
    SCALED: tl.constexpr, RELU: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """``a`` and ``b``: descriptors, of the transposed matrix where its columns are what is contiguous."""
    row_tiles, column_tiles = tl.cdiv(m, BM), tl.cdiv(n, BN)
    for tile in range(tl.program_id(0), row_tiles * column_tiles, PROGRAMS):
        row_tile, column_tile = grouped(tile, row_tiles, column_tiles, GROUP)
        row, column = row_tile * BM, column_tile * BN
        sums = tl.zeros([BM, BN], ACC)
        for depth in range(0, k, BK):
            left = a.load([depth, row]).T if A_IS_COLUMNS else a.load([row, depth])
            right = b.load([column, depth]).T if B_IS_COLUMNS else b.load([depth, column])
            sums = multiply_add(left, right, sums, PRECISION)
        rows = (row + tl.arange(0, BM)).to(tl.int64)[:, None]
        columns = (column + tl.arange(0, BN)).to(tl.int64)[None, :]
        finish(
            sums, out, bias, residual, alpha, beta, 0, rows, columns, m, n, 0, out_row, out_column,
            0, residual_row, residual_column, SCALED, RELU, ACC,
        )  # fmt: skip
