"""c += a @ b^T of one block, where rows of a and of b are contiguous: a sum along two rows for each element of c.

Four rows of a meet four rows of b at once: for each position 8 numbers are read for 16 multiply-adds, whose 16 sums
stay in registers, and LLVM makes vectors of the positions. So the sum of a product may be as long as it likes while c
is small, and neither matrix is transposed: what grad_weight needs, whose rows are the positions of an image. Where
product.py reads and writes c once for every four terms, this writes it once in all: two thirds of the machine's peak,
however few its columns are.

BLOCK rows of b, which the level-1 cache holds, meet all rows of a before the next ones do.
"""

from __future__ import annotations

from .compiled import inner, summed

STEP = 4  # rows of a, and rows of b, that go together
BLOCK = 16  # rows of b that stay in the level-1 cache


@inner
def multiply_rows(a, a_at, a_row, rows, b, b_at, b_row, columns, depth, c, c_at, c_row):
    """c (rows x columns) += a (rows x depth) @ b^T (b: columns x depth).

    Elements of a lie at a_at + i * a_row + p, of b at b_at + j * b_row + p, of c at c_at + i * c_row + j.
    """
    for block in range(0, columns, BLOCK):
        end = min(block + BLOCK, columns)
        for i in range(0, rows, STEP):
            for j in range(block, end, STEP):
                first, second, to = a_at + i * a_row, b_at + j * b_row, c_at + i * c_row + j
                if i + STEP <= rows and j + STEP <= end:
                    _four_by_four(a, first, a_row, b, second, b_row, depth, c, to, c_row)
                else:
                    _fewer(a, first, a_row, min(STEP, rows - i), b, second, b_row, min(STEP, end - j), depth, c, to,
                           c_row)  # fmt: skip


@summed
def _four_by_four(a, a_at, a_row, b, b_at, b_row, depth, c, c_at, c_row):
    a0 = a[a_at : a_at + depth]
    a1 = a[a_at + a_row : a_at + a_row + depth]
    a2 = a[a_at + 2 * a_row : a_at + 2 * a_row + depth]
    a3 = a[a_at + 3 * a_row : a_at + 3 * a_row + depth]
    b0 = b[b_at : b_at + depth]
    b1 = b[b_at + b_row : b_at + b_row + depth]
    b2 = b[b_at + 2 * b_row : b_at + 2 * b_row + depth]
    b3 = b[b_at + 3 * b_row : b_at + 3 * b_row + depth]
    zero = c.dtype.type(0)
    s00 = s01 = s02 = s03 = zero
    s10 = s11 = s12 = s13 = zero
    s20 = s21 = s22 = s23 = zero
    s30 = s31 = s32 = s33 = zero
    for p in range(depth):
        u0, u1, u2, u3 = a0[p], a1[p], a2[p], a3[p]
        v0, v1, v2, v3 = b0[p], b1[p], b2[p], b3[p]
        s00 += u0 * v0
        s01 += u0 * v1
        s02 += u0 * v2
        s03 += u0 * v3
        s10 += u1 * v0
        s11 += u1 * v1
        s12 += u1 * v2
        s13 += u1 * v3
        s20 += u2 * v0
        s21 += u2 * v1
        s22 += u2 * v2
        s23 += u2 * v3
        s30 += u3 * v0
        s31 += u3 * v1
        s32 += u3 * v2
        s33 += u3 * v3
    _add_four(c, c_at, s00, s01, s02, s03)
    _add_four(c, c_at + c_row, s10, s11, s12, s13)
    _add_four(c, c_at + 2 * c_row, s20, s21, s22, s23)
    _add_four(c, c_at + 3 * c_row, s30, s31, s32, s33)


@inner
def _add_four(c, at, s0, s1, s2, s3):
    c[at] += s0
    c[at + 1] += s1
    c[at + 2] += s2
    c[at + 3] += s3


@inner
def _fewer(a, a_at, a_row, rows, b, b_at, b_row, columns, depth, c, c_at, c_row):
    """At the edges of c: sum by sum."""
    for i in range(rows):
        for j in range(columns):
            c[c_at + i * c_row + j] += dot(a, a_at + i * a_row, b, b_at + j * b_row, depth)


@summed
def dot(a, a_at, b, b_at, depth):
    """The sum of products along two contiguous rows."""
    u, v = a[a_at : a_at + depth], b[b_at : b_at + depth]
    total = u.dtype.type(0)
    for p in range(depth):
        total += u[p] * v[p]
    return total
