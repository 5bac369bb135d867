"""What the kernels have in common: reading, writing and multiplying in the dtypes of a problem.

Values are read into the type of the sums (float64 for f64, else float32) and rounded once when they are written.
Triton's interpreter multiplies the bits of bf16 operands as if they were integers, cuts off instead of rounding to
bf16, and multiplies f32 exactly whatever is asked for; INTERPRETED is where that is made up for.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import interpreted

INTERPRETED: tl.constexpr = tl.constexpr(interpreted())


@triton.jit
def number(bits, ACC: tl.constexpr):
    """A floating-point argument from the bits of its double: Triton would pass it as a float."""
    return tl.cast(bits, tl.int64).to(tl.float64, bitcast=True).to(ACC)


@triton.jit
def rounded(value, dtype: tl.constexpr):
    """In another dtype, to nearest even."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = value.to(tl.int32, bitcast=True)
        nearest = ((bits + (0x7FFF + ((bits >> 16) & 1))) & -0x10000).to(tl.float32, bitcast=True)
        value = tl.where(value != value, value, nearest)
    return value.to(dtype)


@triton.jit
def put(pointer, value, mask):
    tl.store(pointer, rounded(value, pointer.dtype.element_ty), mask=mask)


@triton.jit
def rounded_to_tf32(value):
    """To 11 bits of precision, ties away from zero, as tensor cores read f32."""
    nearest = ((value.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return tl.where(value != value, value, nearest)


@triton.jit
def multiply_add(a, b, sums, PRECISION: tl.constexpr):
    """sums + a @ b. PRECISION, of f32: ieee, tf32x3 (three products of rounded parts) or tf32."""
    if INTERPRETED:
        a = a.to(sums.dtype)
        b = b.to(sums.dtype)
        if PRECISION == "tf32":
            a, b = rounded_to_tf32(a), rounded_to_tf32(b)
    return tl.dot(a, b, sums, input_precision=PRECISION, out_dtype=sums.dtype)


@triton.jit
def grouped(tile, row_tiles, column_tiles, GROUP: tl.constexpr):
    """Row and column of a tile, in an order in which those that run at the same time share rows and columns: GROUP rows
    of tiles column by column."""
    first = tile // (GROUP * column_tiles) * GROUP
    height = tl.minimum(row_tiles - first, GROUP)
    inside = tile % (GROUP * column_tiles)
    return first + inside % height, inside // height


@triton.jit
def own_tile(m, n, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr):
    """(batch, rows, columns) that a program computes of m x n matrices."""
    row_tiles, column_tiles = tl.cdiv(m, BM), tl.cdiv(n, BN)
    tile = tl.program_id(0) % (row_tiles * column_tiles)
    batch = (tl.program_id(0) // (row_tiles * column_tiles)).to(tl.int64)
    row_tile, column_tile = grouped(tile, row_tiles, column_tiles, GROUP)
    rows = (row_tile * BM + tl.arange(0, BM)).to(tl.int64)[:, None]
    return batch, rows, (column_tile * BN + tl.arange(0, BN)).to(tl.int64)[None, :]
