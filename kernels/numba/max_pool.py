"""max_pool and adaptive_max_pool: the largest element of each window, and where it was.

Of equal elements the first wins; NaN beats everything, and the last NaN beats the others; a window of nothing but -inf
gives its first element. An index is an offset in the d * h * w plane of its channel. The gradient adds every element of
grad_output to the one that its index names, each plane on one thread.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .compiled import inner, kernel
from .pool_windows import clear_plane, windows
from .sharing import share


@kernel
def forward(threads, x, y, indices, g):
    """``indices`` is empty where nobody asks for them."""
    rows = g.n * g.c * g.out_d * g.out_h
    for thread in prange(threads):
        begin, end = share(rows, thread, threads)
        for row in range(begin, end):
            _row(row, x, y, indices, g)


@inner
def _row(row, x, y, indices, g):
    h, d = row % g.out_h, row // g.out_h % g.out_d
    c, n = row // g.out_h // g.out_d % g.c, row // g.out_h // g.out_d // g.c
    plane = n * g.input_n + c * g.input_c
    to = n * g.output_n + c * g.output_c + d * g.output_d + h * g.output_h
    for w in range(g.out_w):
        best, where = _largest(x, plane, d, h, w, g)
        y[to + w * g.output_w] = best
        if indices.size > 0:
            indices[to + w * g.output_w] = where


@inner
def _largest(x, plane, d, h, w, g):
    d_first, d_end, h_first, h_end, w_first, w_end = windows(d, h, w, g)
    best = x.dtype.type(-np.inf)
    where = (d_first * g.size_h + h_first) * g.size_w + w_first
    for i in range(d_first, d_end, g.dilation_d):
        for j in range(h_first, h_end, g.dilation_h):
            row = plane + i * g.input_d + j * g.input_h
            for k in range(w_first, w_end, g.dilation_w):
                value = x[row + k * g.input_w]
                if value > best or value != value:
                    best = value
                    where = (i * g.size_h + j) * g.size_w + k
    return best, where


@kernel
def gradient(threads, grad_input, grad_output, indices, g):
    for thread in prange(threads):
        begin, end = share(g.n * g.c, thread, threads)
        for plane in range(begin, end):
            _scatter(plane // g.c, plane % g.c, grad_input, grad_output, indices, g)


@inner
def _scatter(n, c, grad_input, grad_output, indices, g):
    plane = n * g.input_n + c * g.input_c
    clear_plane(grad_input, plane, g)
    for d in range(g.out_d):
        for h in range(g.out_h):
            row = n * g.output_n + c * g.output_c + d * g.output_d + h * g.output_h
            for w in range(g.out_w):
                index = indices[row + w * g.output_w]
                i, j, k = index // g.size_w // g.size_h, index // g.size_w % g.size_h, index % g.size_w
                grad_input[plane + i * g.input_d + j * g.input_h + k * g.input_w] += grad_output[row + w * g.output_w]
