"""max_pool and adaptive_max_pool: the largest element of each window, and where it was.

Of equal elements the first wins; NaN beats everything, and the last NaN beats the others; a window of nothing but -inf
gives its first element. An index is a position in the d * h * w plane of its channel, an offset the number of an
element in its window. The gradient adds every element of grad_output to the one that its index or offset names, each
plane on one thread.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .compiled import inner, kernel
from .pool_windows import Pool, clear_plane, next_output_row, output_row, windows
from .sharing import share


@kernel
def forward(threads, x, y, indices, bounds, g, offsets):
    """``indices`` is empty where nobody asks for them, and takes ``offsets`` if so."""
    rows = g.n * g.c * g.out_d * g.out_h
    for thread in prange(threads):
        begin, end = share(rows, thread, threads)
        _rows(begin, end, x, y, indices, bounds, g, offsets)


@inner
def _rows(begin, end, x, y, indices, bounds, g, offsets):
    n, c, d, h = output_row(begin, g)
    for _ in range(begin, end):
        _row(n, c, d, h, x, y, indices, bounds, g, offsets)
        n, c, d, h = next_output_row(n, c, d, h, g)


@inner
def _row(n, c, d, h, x, y, indices, bounds, g, offsets):
    plane = n * g.input_n + c * g.input_c
    to = n * g.output_n + c * g.output_c + d * g.output_d + h * g.output_h
    for w in range(g.out_w):
        best, i, j, k = _largest(x, plane, d, h, w, bounds, g)
        y[to + w * g.output_w] = best
        if offsets:
            indices[to + w * g.output_w] = _offset(d, h, w, i, j, k, g)
        elif indices.size > 0:
            indices[to + w * g.output_w] = (i * g.size_h + j) * g.size_w + k


@inner
def _largest(x, plane, d, h, w, bounds, g):
    """The largest element of a window, and its position."""
    d_first, d_end, h_first, h_end, w_first, w_end = windows(d, h, w, bounds, g)
    best = x.dtype.type(-np.inf)
    best_i, best_j, best_k = d_first, h_first, w_first
    for i in range(d_first, d_end, g.dilation_d):
        for j in range(h_first, h_end, g.dilation_h):
            row = plane + i * g.input_d + j * g.input_h
            for k in range(w_first, w_end, g.dilation_w):
                value = x[row + k * g.input_w]
                if value > best or value != value:
                    best = value
                    best_i, best_j, best_k = i, j, k
    return best, best_i, best_j, best_k


@inner
def _offset(d, h, w, i, j, k, g):
    """The number in window (d, h, w) of its element at (i, j, k)."""
    at_d = (i + g.padding_d - d * g.stride_d) // g.dilation_d
    at_h = (j + g.padding_h - h * g.stride_h) // g.dilation_h
    at_w = (k + g.padding_w - w * g.stride_w) // g.dilation_w
    return (at_d * g.filter_h + at_h) * g.filter_w + at_w


def steps_of(g: Pool) -> np.ndarray:
    """Of the element of each number in a window: how far it lies from where the window begins, padding and all."""
    numbers = np.indices((g.filter_d, g.filter_h, g.filter_w)).reshape(3, -1)
    return np.array([g.dilation_d * g.input_d, g.dilation_h * g.input_h, g.dilation_w * g.input_w]) @ numbers


@kernel
def gradient(threads, grad_input, grad_output, indices, steps, g):
    """``steps`` are those of offsets, and empty where ``indices`` are positions."""
    for thread in prange(threads):
        begin, end = share(g.n * g.c, thread, threads)
        for plane in range(begin, end):
            _scatter(plane // g.c, plane % g.c, grad_input, grad_output, indices, steps, g)


@inner
def _scatter(n, c, grad_input, grad_output, indices, steps, g):
    plane = n * g.input_n + c * g.input_c
    clear_plane(grad_input, plane, g)
    for d in range(g.out_d):
        for h in range(g.out_h):
            row = n * g.output_n + c * g.output_c + d * g.output_d + h * g.output_h
            begin = plane + (d * g.stride_d - g.padding_d) * g.input_d + (h * g.stride_h - g.padding_h) * g.input_h
            for w in range(g.out_w):
                index = np.int64(indices[row + w * g.output_w])
                if steps.size > 0:
                    at = begin + (w * g.stride_w - g.padding_w) * g.input_w + steps[index]
                else:
                    at = plane + index * g.input_w  # the positions of a plane follow each other
                grad_input[at] += grad_output[row + w * g.output_w]
