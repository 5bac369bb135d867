"""relu: y = x where x is not negative, else 0; NaN stays. Its gradient: grad_output where not y <= 0, else 0.

One pass over dense memory, bound by its bandwidth.
"""

from __future__ import annotations

from numba import prange

from .compiled import inner, kernel
from .sharing import share


@kernel
def forward(threads, x, y):
    for thread in prange(threads):
        begin, end = share(x.size, thread, threads)
        _forward(x[begin:end], y[begin:end])


@inner
def _forward(x, y):
    for i in range(x.size):
        y[i] = 0 if x[i] < 0 else x[i]


@kernel
def gradient(threads, y, grad_output, grad_input):
    for thread in prange(threads):
        begin, end = share(y.size, thread, threads)
        _gradient(y[begin:end], grad_output[begin:end], grad_input[begin:end])


@inner
def _gradient(y, grad_output, grad_input):
    """Where the forward met NaN the gradient goes through, as torch's does."""
    for i in range(y.size):
        grad_input[i] = 0 if y[i] <= 0 else grad_output[i]
