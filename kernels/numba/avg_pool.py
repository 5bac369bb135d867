"""avg_pool and adaptive_avg_pool: the sum of each window over its divisor.

The divisor is the one given, or the number of the window's positions: those in the padding count where
count_include_pad says so, those beyond the right padding never. The gradient spreads every element of grad_output over
its window, each plane on one thread.
"""

from __future__ import annotations

from numba import prange

from .channels import row_sum
from .compiled import inner, kernel
from .pool_windows import clear_plane, next_output_row, output_row, rows_follow, windows
from .sharing import share


@kernel
def forward(threads, x, y, bounds, g, divisor, count_include_pad):
    rows = g.n * g.c * g.out_d * g.out_h
    for thread in prange(threads):
        begin, end = share(rows, thread, threads)
        _rows(begin, end, x, y, bounds, g, divisor, count_include_pad)


@inner
def _rows(begin, end, x, y, bounds, g, divisor, count_include_pad):
    n, c, d, h = output_row(begin, g)
    for _ in range(begin, end):
        _row(n, c, d, h, x, y, bounds, g, divisor, count_include_pad)
        n, c, d, h = next_output_row(n, c, d, h, g)


@inner
def _row(n, c, d, h, x, y, bounds, g, divisor, count_include_pad):
    plane = n * g.input_n + c * g.input_c
    to = n * g.output_n + c * g.output_c + d * g.output_d + h * g.output_h
    for w in range(g.out_w):
        d_first, d_end, h_first, h_end, w_first, w_end = windows(d, h, w, bounds, g)
        total = x.dtype.type(0)
        if _is_row(w_first, w_end, g):
            for i in range(d_first, d_end):
                from_ = plane + i * g.input_d + h_first * g.input_h
                total += row_sum(x[from_ : from_ + (h_end - h_first) * g.size_w])
        else:
            for i in range(d_first, d_end):
                for j in range(h_first, h_end):
                    from_ = plane + i * g.input_d + j * g.input_h
                    for k in range(w_first, w_end):
                        total += x[from_ + k * g.input_w]
        met = (d_end - d_first) * (h_end - h_first) * (w_end - w_first)
        y[to + w * g.output_w] = total / x.dtype.type(_divisor(d, h, w, met, g, divisor, count_include_pad))


@inner
def _is_row(w_first, w_end, g):
    """Whether the rows of a window follow each other in the input."""
    return rows_follow(g) and w_end - w_first == g.size_w


@inner
def _divisor(d, h, w, met, g, divisor, count_include_pad):
    """``met``: the positions of the window that lie in the image."""
    if divisor != 0:
        return divisor
    if g.adaptive or not count_include_pad:
        return met
    count = _padded(d, g.size_d, g.filter_d, g.stride_d, g.padding_d)
    count *= _padded(h, g.size_h, g.filter_h, g.stride_h, g.padding_h)
    return count * _padded(w, g.size_w, g.filter_w, g.stride_w, g.padding_w)


@inner
def _padded(o, size, filter, stride, padding):
    """Positions of a window up to the end of the right padding."""
    return min(filter, size + 2 * padding - o * stride)


@kernel
def gradient(threads, grad_input, grad_output, bounds, g, divisor, count_include_pad):
    for thread in prange(threads):
        begin, end = share(g.n * g.c, thread, threads)
        for plane in range(begin, end):
            _spread(plane // g.c, plane % g.c, grad_input, grad_output, bounds, g, divisor, count_include_pad)


@inner
def _spread(n, c, grad_input, grad_output, bounds, g, divisor, count_include_pad):
    plane = n * g.input_n + c * g.input_c
    clear_plane(grad_input, plane, g)
    for d in range(g.out_d):
        for h in range(g.out_h):
            row = n * g.output_n + c * g.output_c + d * g.output_d + h * g.output_h
            for w in range(g.out_w):
                d_first, d_end, h_first, h_end, w_first, w_end = windows(d, h, w, bounds, g)
                met = (d_end - d_first) * (h_end - h_first) * (w_end - w_first)
                count = grad_input.dtype.type(_divisor(d, h, w, met, g, divisor, count_include_pad))
                part = grad_output[row + w * g.output_w] / count
                if _is_row(w_first, w_end, g):
                    for i in range(d_first, d_end):
                        to = plane + i * g.input_d + h_first * g.input_h
                        grad_input[to : to + (h_end - h_first) * g.size_w] += part
                    continue
                for i in range(d_first, d_end):
                    for j in range(h_first, h_end):
                        to = plane + i * g.input_d + j * g.input_h
                        for k in range(w_first, w_end):
                            grad_input[to + k * g.input_w] += part
