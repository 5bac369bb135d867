"""Convolution by Fourier transforms of overlapping tiles (overlap-save), as matrix products: for large filters.

A tile is a matrix of N1 x N2 real elements. Its two-dimensional transform is F1 @ tile @ F2, with the DFT matrices F1
and F2. A line of N1 * N2 elements (LINE), row after row in that matrix, is transformed likewise, with twiddle factors
between the two products (the Monarch decomposition: Dao et al., "Monarch: expressive structured matrices", 2022; Fu et
al., "FlashFFTConv", 2023). Either way row k1 of the spectrum is the conjugate of row N1 - k1 in another order, so that
N1 / 2 + 1 rows are kept, each frequency k1 * N2 + k2 a matrix of its own: lines (tiles, or filters) by channels. All
complex numbers are two planes, the real parts and, ``..._imaginary`` elements further, the imaginary ones.

    roots           cosines and sines of all that, once per weight (grad_weight: per call)
    to_spectra      BR rows of a tile's spectrum, of one channel, per program: 4 N1 N2 (N1 + 2 N2) operations
    product         at each frequency a complex matrix product, 8 operations for each pair of lines and term; of few
                    channels by thin_product
    from_spectra    the same way back

Spectra are kept in the type of the sums, those of 16-bit tensors in f32. Elements of 4 bytes: N1 N2 * 4 read per tile
and channel, 8 (N1 / 2 + 1) N2 written, which the product reads. A stride or a dilation costs as much as the dense
problem.

The product reads and writes lines of channels: whole sectors. A program of the transforms has one line and channel, and
frequencies in the lanes of its warps, which lie lines * channels elements apart: 32 sectors per access, where
neighbours would take 4. What moves between L2 cache and memory is not more for that, since the programs of the channels
that share a sector run one after the other; what moves between multiprocessors and L2 is 8 times as much. With 64 by 64
channels, 2 images of 64 x 64 and a filter of 31 x 31: 528 MiB for the 66 MiB of the filters' spectra, once per weight;
66 MiB each for the 8.25 MiB that the images' and the results' take, per call, besides 83 MiB of the product.

A result depends on its whole tile: what is not finite makes every result NaN that shares a tile and group with it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .conv_epilogue import finish
from .language import multiply_add, own_tile, put
from .windows import elements


@triton.jit
def roots(table, count, ACC: tl.constexpr, LINE: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr, BLOCK: tl.constexpr):
    """Cosines, then sines, of N1 x N1 and N2 x N2 DFT matrices and, of a line, of N1 x N2 twiddle factors."""
    element, there = elements(count, BLOCK, False)
    second = element - N1 * N1
    third = second - N2 * N2
    turn = (element // N1 * (element % N1) % N1).to(tl.float64) / N1
    turn = tl.where(second >= 0, (second // N2 * (second % N2) % N2).to(tl.float64) / N2, turn)
    if LINE:
        turn = tl.where(third >= 0, (third // N2 * (third % N2)).to(tl.float64) / (N1 * N2), turn)
    angle = turn * 6.283185307179586
    put(table + element, tl.cos(angle).to(ACC), there)
    put(table + count + element, tl.sin(angle).to(ACC), there)


@triton.jit
def part(table, rows, columns, OFFSET: tl.constexpr, COUNT: tl.constexpr, WIDTH: tl.constexpr):
    """(cosines, sines) of some rows and columns of one of the matrices of ``roots``."""
    at = table + OFFSET + rows[:, None] * WIDTH + columns[None, :]
    return tl.load(at), tl.load(at + COUNT)


@triton.jit
def met(tile, x, origin, advance, step, low, high, first, limit):
    """The element of a tensor's axis that position ``x`` of a tile's axis is, (origin + tile * advance + x) / step, and
    whether there is one: where that is whole and in [low, high), for x in [first, limit)."""
    at = origin + tile * advance + x
    element = at // step
    return element, (x >= first) & (x < limit) & (at >= 0) & (at % step == 0) & (element >= low) & (element < high)


@triton.jit
def positions(above, below, LINE: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr):
    """(row, column) of the elements of a tile from those of the matrix."""
    row, column = above[:, None], below[None, :]
    if LINE:
        column += row * N2
        row = tl.zeros([N1, 1], tl.int32)
    return row, column


@triton.jit
def place(program, first_tile, tiles, channels, tile_rows, tile_columns):
    """(group, channel, which of ``tiles``, image, row of tiles, column of tiles) of a program."""
    channel = (program % channels).to(tl.int64)
    line = (program // channels % tiles).to(tl.int64)
    tile = line + first_tile
    group = (program // channels // tiles).to(tl.int64)
    row = tile // tile_columns % tile_rows
    return group, channel, line, tile // tile_columns // tile_rows, row.to(tl.int32), (tile % tile_columns).to(tl.int32)


@triton.jit
def frequencies(group, line, channel, row, column, lines, channels, N1: tl.constexpr, N2: tl.constexpr):
    """Where rows and columns of the spectrum of a line and channel lie, and which of them there are."""
    KEPT: tl.constexpr = N1 // 2 + 1
    frequency = (group * KEPT + row[:, None]) * N2 + column[None, :]
    return (frequency * lines + line) * channels + channel, row[:, None] < KEPT


@triton.jit(do_not_specialize=["first_tile"])
def to_spectra(
    source, table, spectra, spectra_imaginary, first_tile, tiles, lines, channels, tile_rows, tile_columns,
    source_n, source_g, source_c, source_p, width,
    h_origin, h_advance, h_step, h_low, h_high, h_first, h_limit,
    w_origin, w_advance, w_step, w_low, w_high, w_first, w_limit,
    CONJUGATED: tl.constexpr, LINE: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    N1: tl.constexpr, N2: tl.constexpr, ROOTS: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """The spectra of ``tiles`` tiles from ``first_tile`` on, or their conjugates. ``lines``: how many there is room
    for; ``width``: of a row of the source."""
    BLOCKS: tl.constexpr = (N1 // 2 + BR) // BR
    group, channel, line, n, tile_row, tile_column = place(
        tl.program_id(0) // BLOCKS, first_tile, tiles, channels, tile_rows, tile_columns
    )
    above, below = tl.arange(0, N1), tl.arange(0, N2)
    y, x = positions(above, below, LINE, N1, N2)
    h, inside_h = met(tile_row, y, h_origin, h_advance, h_step, h_low, h_high, h_first, h_limit)
    w, inside_w = met(tile_column, x, w_origin, w_advance, w_step, w_low, w_high, w_first, w_limit)
    image = source + n * source_n + group * source_g + channel * source_c
    at = h.to(tl.int64) * width + w
    values = tl.load(image + at * source_p, mask=inside_h & inside_w, other=0).to(ACC)
    row = tl.program_id(0) % BLOCKS * BR + tl.arange(0, BR)
    none = tl.zeros([BR, N2], ACC)
    cosines, sines = part(table, row, above, 0, ROOTS, N1)
    real = multiply_add(cosines, values, none, PRECISION)
    imaginary = multiply_add(-sines, values, none, PRECISION)
    if LINE:
        cosines, sines = part(table, row, below, N1 * N1 + N2 * N2, ROOTS, N2)
        real, imaginary = real * cosines + imaginary * sines, imaginary * cosines - real * sines
    cosines, sines = part(table, below, below, N1 * N1, ROOTS, N2)
    at, kept = frequencies(group, line, channel, row, below, lines, channels, N1, N2)
    sums = multiply_add(imaginary, sines, multiply_add(real, cosines, none, PRECISION), PRECISION)
    put(spectra + at, sums, kept)
    sums = multiply_add(-real, sines, multiply_add(imaginary, cosines, none, PRECISION), PRECISION)
    put(spectra + spectra_imaginary + at, -sums if CONJUGATED else sums, kept)


@triton.jit
def product(
    a, b, out, a_imaginary, b_imaginary, out_imaginary, m, n, k,
    a_batch, a_row, a_column, b_batch, b_row, out_batch, out_row,
    ADD: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """out = a @ b, or with ADD out + a @ b, complex, per frequency. As gemm.py, with twice the operands and sums."""
    batch, rows, columns = own_tile(m, n, BM, BN, GROUP)
    depth = tl.arange(0, BK).to(tl.int64)
    from_a = a + batch * a_batch + rows * a_row + depth[None, :] * a_column
    from_b = b + batch * b_batch + depth[:, None] * b_row + columns
    to = out + batch * out_batch + rows * out_row + columns
    inside = (rows < m) & (columns < n)
    real, imaginary = tl.zeros([BM, BN], ACC), tl.zeros([BM, BN], ACC)
    if ADD:
        real += tl.load(to, mask=inside, other=0)
        imaginary += tl.load(to + out_imaginary, mask=inside, other=0)
    for first in range(0, k, BK):
        in_a, in_b = (rows < m) & (depth[None, :] < k - first), (columns < n) & (depth[:, None] < k - first)
        a_re, a_im = tl.load(from_a, mask=in_a, other=0), tl.load(from_a + a_imaginary, mask=in_a, other=0)
        b_re, b_im = tl.load(from_b, mask=in_b, other=0), tl.load(from_b + b_imaginary, mask=in_b, other=0)
        real = multiply_add(-a_im, b_im, multiply_add(a_re, b_re, real, PRECISION), PRECISION)
        imaginary = multiply_add(a_im, b_re, multiply_add(a_re, b_im, imaginary, PRECISION), PRECISION)
        from_a += tl.cast(a_column, tl.int64) * BK
        from_b += tl.cast(b_row, tl.int64) * BK
    put(to, real, inside)
    put(to + out_imaginary, imaginary, inside)


@triton.jit
def thin_product(
    a, b, out, a_imaginary, b_imaginary, out_imaginary, batches, m, n, k,
    a_batch, a_row, a_column, b_batch, b_row, out_batch, out_row,
    ADD: tl.constexpr, ACC: tl.constexpr, BB: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """As product, term by term, where tiles of a matrix product would be mostly empty: BM rows of one column, BB
    frequencies at a time."""
    blocks, row_tiles = tl.cdiv(batches, BB), tl.cdiv(m, BM)
    batch = (tl.program_id(0) % blocks * BB + tl.arange(0, BB)).to(tl.int64)[:, None]
    row = (tl.program_id(0) // blocks % row_tiles * BM + tl.arange(0, BM)).to(tl.int64)[None, :]
    column = (tl.program_id(0) // blocks // row_tiles).to(tl.int64)
    from_a, from_b = a + batch * a_batch + row * a_row, b + batch * b_batch + column
    to = out + batch * out_batch + row * out_row + column
    there = batch < batches
    inside = there & (row < m)
    real, imaginary = tl.zeros([BB, BM], ACC), tl.zeros([BB, BM], ACC)
    if ADD:
        real += tl.load(to, mask=inside, other=0)
        imaginary += tl.load(to + out_imaginary, mask=inside, other=0)
    for _ in range(0, k):
        a_re, a_im = tl.load(from_a, mask=inside, other=0), tl.load(from_a + a_imaginary, mask=inside, other=0)
        b_re, b_im = tl.load(from_b, mask=there, other=0), tl.load(from_b + b_imaginary, mask=there, other=0)
        real += a_re * b_re - a_im * b_im
        imaginary += a_re * b_im + a_im * b_re
        from_a += a_column
        from_b += b_row
    put(to, real, inside)
    put(to + out_imaginary, imaginary, inside)


@triton.jit(do_not_specialize=["first_tile"])
def from_spectra(
    spectra, table, out, bias, residual, spectra_imaginary, first_tile, tiles, lines, channels, tile_rows, tile_columns,
    out_n, out_g, out_c, out_p, width, residual_n, residual_g, residual_c, residual_p,
    h_origin, h_advance, h_step, h_low, h_high, h_first, h_limit,
    w_origin, w_advance, w_step, w_low, w_high, w_first, w_limit,
    RELU: tl.constexpr, LINE: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    N1: tl.constexpr, N2: tl.constexpr, ROOTS: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """The elements of ``tiles`` tiles from ``first_tile`` on. ``width``: of a row of the computed tensor."""
    group, channel, line, n, tile_row, tile_column = place(
        tl.program_id(0), first_tile, tiles, channels, tile_rows, tile_columns
    )
    above, below = tl.arange(0, N1), tl.arange(0, N2)
    sums = tl.zeros([N1, N2], ACC)
    for first in range(0, N1 // 2 + 1, BR):
        row = first + tl.arange(0, BR)
        left, right = tl.zeros([BR, N2], ACC), tl.zeros([BR, N2], ACC)
        for begin in range(0, N2, BR):
            column = begin + tl.arange(0, BR)
            at, kept = frequencies(group, line, channel, row, column, lines, channels, N1, N2)
            real = tl.load(spectra + at, mask=kept, other=0)
            imaginary = tl.load(spectra + spectra_imaginary + at, mask=kept, other=0)
            cosines, sines = part(table, column, below, N1 * N1, ROOTS, N2)
            left = multiply_add(-imaginary, sines, multiply_add(real, cosines, left, PRECISION), PRECISION)
            right = multiply_add(real, sines, multiply_add(imaginary, cosines, right, PRECISION), PRECISION)
        if LINE:
            cosines, sines = part(table, row, below, N1 * N1 + N2 * N2, ROOTS, N2)
            left, right = left * cosines - right * sines, right * cosines + left * sines
        itself = (row == 0) | (row == N1 // 2)  # what another row is the conjugate of counts twice
        share = (tl.where(itself, 1.0, 2.0) / (N1 * N2)).to(ACC)[:, None]
        cosines, sines = part(table, above, row, 0, ROOTS, N1)
        sums = multiply_add(cosines, left * share, sums, PRECISION)
        sums = multiply_add(-sines, right * share, sums, PRECISION)
    sums += sums * 0  # an infinity's sign means nothing: relu must not hide it
    y, x = positions(above, below, LINE, N1, N2)
    h, inside_h = met(tile_row, y, h_origin, h_advance, h_step, h_low, h_high, h_first, h_limit)
    w, inside_w = met(tile_column, x, w_origin, w_advance, w_step, w_low, w_high, w_first, w_limit)
    if bias is not None:
        bias += group * channels
    if residual is not None:
        residual += group * residual_g
    finish(
        sums, out + group * out_g, bias, residual, n, channel, h.to(tl.int64) * width + w, inside_h & inside_w,
        channel < channels, out_n, out_c, out_p, residual_n, residual_c, residual_p, RELU,
    )  # fmt: skip
