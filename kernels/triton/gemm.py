"""out = relu(alpha * a @ b + beta * residual + bias), per batch, for operands of any strides.

A program computes a tile of BM x BN of one matrix of the batch: BK columns of a and rows of b at a time, which Triton
loads ahead (num_stages) while tensor cores multiply the ones before. 2 * BM * BN * BK operations for (BM + BN) * BK
elements read; tiles that run together share them in the L2 cache (language.grouped).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .language import multiply_add, number, own_tile, put


@triton.jit(do_not_specialize=["alpha", "beta"])
def product(
    a, b, out, bias, residual, alpha: tl.int64, beta: tl.int64, m, n, k,
    a_batch, a_row, a_column, b_batch, b_row, b_column, out_batch, out_row, out_column,
    residual_batch, residual_row, residual_column,
    SCALED: tl.constexpr, RELU: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    batch, rows, columns = own_tile(m, n, BM, BN, GROUP)
    depth = tl.arange(0, BK).to(tl.int64)
    from_a = a + batch * a_batch + rows * a_row + depth[None, :] * a_column
    from_b = b + batch * b_batch + depth[:, None] * b_row + columns * b_column
    sums = tl.zeros([BM, BN], ACC)
    for first in range(0, k, BK):
        left = tl.load(from_a, mask=(rows < m) & (depth[None, :] < k - first), other=0)
        right = tl.load(from_b, mask=(columns < n) & (depth[:, None] < k - first), other=0)
        sums = multiply_add(left, right, sums, PRECISION)
        from_a += tl.cast(a_column, tl.int64) * BK
        from_b += tl.cast(b_row, tl.int64) * BK
    sums = finished(
        sums, bias, residual, alpha, beta, batch, rows, columns, m, n, residual_batch, residual_row, residual_column,
        SCALED, RELU, ACC,
    )  # fmt: skip
    put(out + batch * out_batch + rows * out_row + columns * out_column, sums, (rows < m) & (columns < n))


@triton.jit
def finished(
    sums, bias, residual, alpha, beta, batch, rows, columns, m, n, residual_batch, residual_row, residual_column,
    SCALED: tl.constexpr, RELU: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """All that follows the product, but the store."""
    if SCALED:
        sums *= number(alpha, ACC)
    if residual is not None:
        at = residual + batch * residual_batch + rows * residual_row + columns * residual_column
        added = tl.load(at, mask=(rows < m) & (columns < n), other=0).to(ACC)
        if SCALED:
            added *= number(beta, ACC)
        sums += added
    if bias is not None:
        sums += tl.load(bias + columns, mask=columns < n, other=0).to(ACC)
    if RELU:
        sums = tl.where(sums < 0, 0.0, sums)
    return sums
