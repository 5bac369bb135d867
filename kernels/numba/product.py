"""c += a @ b of one block: the innermost loops of every kernel that is a matrix product.

Four rows of c take four rows of b at once: for each element of a row 4 + 4 numbers are read and 4 written for 16
multiply-adds, whose other factors, a 4 x 4 block of a, stay in registers. LLVM turns the loop along the row into
vectors; it needs no more than rows that are contiguous, so a may lie as it likes. What is left over beyond whole blocks
of four goes row by row. Up to three fifths of the machine's peak where b fits the L2 cache and rows of c are 512 long:
before each pass along them LLVM makes sure that they do not overlap, which takes as long as a hundred elements.
"""

from __future__ import annotations

from .compiled import inner

ROW_BLOCK = 4  # rows of c, and rows of b, that go together


@inner
def multiply(a, a_at, a_row, a_column, rows, b, b_at, b_row, depth, c, c_at, c_row, columns):
    """c (rows x columns) += a (rows x depth) @ b (depth x columns).

    Elements of a lie at a_at + i * a_row + p * a_column, of b at b_at + p * b_row + j, of c at c_at + i * c_row + j.
    """
    whole_rows, whole_depth = rows - rows % ROW_BLOCK, depth - depth % ROW_BLOCK
    for i in range(0, whole_rows, ROW_BLOCK):
        for p in range(0, whole_depth, ROW_BLOCK):
            _four_rows(
                a, a_at + i * a_row + p * a_column, a_row, a_column, b, b_at + p * b_row, b_row,
                c, c_at + i * c_row, c_row, columns,
            )  # fmt: skip
    for i in range(rows):
        first = whole_depth if i < whole_rows else 0
        for p in range(first, whole_depth, ROW_BLOCK):
            _one_row(a, a_at + i * a_row + p * a_column, a_column, b, b_at + p * b_row, b_row, c, c_at + i * c_row,
                     columns)  # fmt: skip
        for p in range(whole_depth, depth):
            add_scaled(a[a_at + i * a_row + p * a_column], b, b_at + p * b_row, c, c_at + i * c_row, columns)


@inner
def _four_rows(a, at, row, column, b, b_at, b_row, c, c_at, c_row, columns):
    a00, a01, a02, a03 = _four(a, at, column)
    a10, a11, a12, a13 = _four(a, at + row, column)
    a20, a21, a22, a23 = _four(a, at + 2 * row, column)
    a30, a31, a32, a33 = _four(a, at + 3 * row, column)
    b0 = b[b_at : b_at + columns]
    b1 = b[b_at + b_row : b_at + b_row + columns]
    b2 = b[b_at + 2 * b_row : b_at + 2 * b_row + columns]
    b3 = b[b_at + 3 * b_row : b_at + 3 * b_row + columns]
    c0 = c[c_at : c_at + columns]
    c1 = c[c_at + c_row : c_at + c_row + columns]
    c2 = c[c_at + 2 * c_row : c_at + 2 * c_row + columns]
    c3 = c[c_at + 3 * c_row : c_at + 3 * c_row + columns]
    for j in range(columns):
        v0, v1, v2, v3 = b0[j], b1[j], b2[j], b3[j]
        c0[j] += a00 * v0 + a01 * v1 + a02 * v2 + a03 * v3
        c1[j] += a10 * v0 + a11 * v1 + a12 * v2 + a13 * v3
        c2[j] += a20 * v0 + a21 * v1 + a22 * v2 + a23 * v3
        c3[j] += a30 * v0 + a31 * v1 + a32 * v2 + a33 * v3


@inner
def _one_row(a, at, column, b, b_at, b_row, c, c_at, columns):
    a0, a1, a2, a3 = _four(a, at, column)
    b0 = b[b_at : b_at + columns]
    b1 = b[b_at + b_row : b_at + b_row + columns]
    b2 = b[b_at + 2 * b_row : b_at + 2 * b_row + columns]
    b3 = b[b_at + 3 * b_row : b_at + 3 * b_row + columns]
    c0 = c[c_at : c_at + columns]
    for j in range(columns):
        c0[j] += a0 * b0[j] + a1 * b1[j] + a2 * b2[j] + a3 * b3[j]


@inner
def _four(a, at, step):
    return a[at], a[at + step], a[at + 2 * step], a[at + 3 * step]


@inner
def add_scaled(factor, b, b_at, c, c_at, columns):
    """A row of c += factor * a row of b."""
    b0 = b[b_at : b_at + columns]
    c0 = c[c_at : c_at + columns]
    for j in range(columns):
        c0[j] += factor * b0[j]


@inner
def clear(c, at, count):
    """Zeros."""
    c[at : at + count] = 0
