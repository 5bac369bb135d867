"""ReLU on a GPU with numba.cuda: one thread per element.

The first CUDA kernel that anyone writes. A thread works out its place in the whole grid, and does nothing if that lies
beyond the end: the grid is a whole number of blocks. Neighbouring threads read neighbouring elements, so that the 32
threads of a warp read one or two cache lines together; that is all there is to its speed, which is that of memory.

A teaching piece: run by its test in Numba's simulator (NUMBA_ENABLE_CUDASIM=1), not registered.
"""

from __future__ import annotations

from numba import cuda

BLOCK = 64  # threads


@cuda.jit
def relu(x, y):
    """y[i] = x[i] where it is not negative, else 0. x, y: (count,)."""
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if i < x.size:
        y[i] = 0 if x[i] < 0 else x[i]


def launch(x, y) -> None:
    """Runs it over arrays that are on the device."""
    relu[-(-x.size // BLOCK), BLOCK](x, y)
