"""Max-pooling on a GPU with numba.cuda: one thread per output element, values and indices.

As max_pool.py: of equal elements the first wins, NaN beats everything. There is nothing to share between threads but
what the cache already does, so that this is nearly what a production kernel looks like; csrc/cuda/max_pool.cu adds
vectors and blocks of channels for nhwc.

A teaching piece: run by its test in Numba's simulator (NUMBA_ENABLE_CUDASIM=1), not registered.
"""

from __future__ import annotations

from math import inf

from numba import cuda

BLOCK = 32  # threads


@cuda.jit
def max_pool2d(x, y, indices, size, stride, padding):
    """x (planes, h, w) to y and indices (planes, ...); an index is an offset in its plane."""
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if i >= y.size:
        return
    column, row, plane = i % y.shape[2], i // y.shape[2] % y.shape[1], i // y.shape[2] // y.shape[1]
    top, left = row * stride - padding, column * stride - padding
    best, where = -inf, max(top, 0) * x.shape[2] + max(left, 0)
    for r in range(max(top, 0), min(top + size, x.shape[1])):
        for s in range(max(left, 0), min(left + size, x.shape[2])):
            value = x[plane, r, s]
            if value > best or value != value:
                best, where = value, r * x.shape[2] + s
    y[plane, row, column] = best
    indices[plane, row, column] = where


def launch(x, y, indices, size: int, stride: int, padding: int) -> None:
    """Runs it over arrays that are on the device."""
    max_pool2d[-(-y.size // BLOCK), BLOCK](x, y, indices, size, stride, padding)
