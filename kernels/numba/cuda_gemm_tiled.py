"""Matrix product on a GPU with numba.cuda: tiles in shared memory.

A block computes a TILE x TILE tile of the result. Step by step it copies a tile of a and one of b to shared memory,
each thread one element of both, waits until all are there, multiplies, and waits again before it overwrites them. Every
element is then read from memory once per tile of the result instead of once per element: TILE times less. What lies
beyond the edges is copied as 0. The wait after the copy and the one before the next are both needed: without the first
a thread reads what its neighbour has not written yet, without the second what its neighbour has already overwritten.

A teaching piece: run by its test in Numba's simulator (NUMBA_ENABLE_CUDASIM=1), not registered. The next steps of the
ladder (several results per thread, vectors, two stages) are csrc/cuda/gemm_simt_4 to 8.
"""

from __future__ import annotations

from numba import cuda, float32

TILE = 8


@cuda.jit
def gemm(a, b, c):
    """c = a @ b in float32: a (m, k), b (k, n), c (m, n)."""
    a_tile = cuda.shared.array((TILE, TILE), float32)
    b_tile = cuda.shared.array((TILE, TILE), float32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    row, column = cuda.blockIdx.y * TILE + y, cuda.blockIdx.x * TILE + x
    total = float32(0)
    for first in range(0, a.shape[1], TILE):
        a_tile[y, x] = a[row, first + x] if row < a.shape[0] and first + x < a.shape[1] else 0
        b_tile[y, x] = b[first + y, column] if first + y < b.shape[0] and column < b.shape[1] else 0
        cuda.syncthreads()
        for p in range(TILE):
            total += a_tile[y, p] * b_tile[p, x]
        cuda.syncthreads()
    if row < c.shape[0] and column < c.shape[1]:
        c[row, column] = total


def launch(a, b, c) -> None:
    """Runs it over arrays that are on the device."""
    gemm[(-(-c.shape[1] // TILE), -(-c.shape[0] // TILE)), (TILE, TILE)](a, b, c)
