"""Direct convolution on a GPU with numba.cuda: one thread per output element.

The definition, in parallel: a thread sums over channels and filter taps and leaves out what falls into the padding.
Neighbouring threads of a block compute neighbouring columns of one row: at each step a warp reads consecutive elements
of the input and all the same weight. Every input element is read once per tap and output channel, from cache for the
most part; csrc/cuda shows what it takes to read it once.

A teaching piece: run by its test in Numba's simulator (NUMBA_ENABLE_CUDASIM=1), not registered.
"""

from __future__ import annotations

from numba import cuda

BLOCK = (16, 4)  # columns and rows of the output


@cuda.jit
def conv2d(x, weight, y, stride, padding):
    """y[n, k] = sum over c of x[n, c] correlated with weight[k, c]. x (n, c, h, w), weight (k, c, r, s), y (n, k, ...).

    The third axis of the grid counts the planes (n, k) of the output.
    """
    column = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    row = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y
    n, k = cuda.blockIdx.z // weight.shape[0], cuda.blockIdx.z % weight.shape[0]
    if row >= y.shape[2] or column >= y.shape[3]:
        return
    total = x.dtype.type(0)
    for c in range(weight.shape[1]):
        for r in range(weight.shape[2]):
            i = row * stride - padding + r
            if i < 0 or i >= x.shape[2]:
                continue
            for s in range(weight.shape[3]):
                j = column * stride - padding + s
                if j >= 0 and j < x.shape[3]:
                    total += x[n, c, i, j] * weight[k, c, r, s]
    y[n, k, row, column] = total


def launch(x, weight, y, stride: int, padding: int) -> None:
    """Runs it over arrays that are on the device."""
    grid = (-(-y.shape[3] // BLOCK[0]), -(-y.shape[2] // BLOCK[1]), y.shape[0] * y.shape[1])
    conv2d[grid, BLOCK](x, weight, y, stride, padding)
