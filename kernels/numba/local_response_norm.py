"""local_response_norm: y[c] = x[c] * s[c]^-beta, s[c] = k + alpha / window * the sum of x[j]^2 over the channels
c - window // 2 <= j <= c + (window - 1) // 2 that exist. Its gradient:
    grad_input[c] = g[c] * s[c]^-beta - 2 alpha beta / window * x[c] * sum over the j whose sums contain c of
                    g[j] * x[j] * s[j]^(-beta - 1)

A thread takes a row of positions with all its channels; the gradient keeps s^-beta and the terms of its sums for the
row in workspace, a row of positions per channel. Sums over channels are made anew for each channel: nothing cancels.
"""

from __future__ import annotations

from numba import prange

from .channels import row_offsets
from .compiled import inner, kernel
from .sharing import share


@kernel
def forward(threads, x, y, workspace, alpha, beta, k, window, g):
    """A thread uses g.c * g.w elements of the workspace."""
    for thread in prange(threads):
        begin, end = share(g.n * g.d * g.h, thread, threads)
        for row in range(begin, end):
            at_x, at_y, _ = row_offsets(row, g)
            powers = workspace[thread * g.c * g.w : (thread + 1) * g.c * g.w]
            _powers(x, at_x, powers, alpha, beta, k, window, g)
            for c in range(g.c):
                for w in range(g.w):
                    y[at_y + c * g.y_c + w * g.y_w] = x[at_x + c * g.x_c + w * g.x_w] * powers[c * g.w + w]


@inner
def _powers(x, at, powers, alpha, beta, k, window, g):
    """s^-beta of every channel and position of a row."""
    for c in range(g.c):
        row = powers[c * g.w : (c + 1) * g.w]
        _sums_of_squares(x, at, row, c, alpha, k, window, g)
        for w in range(g.w):
            row[w] = row[w] ** row.dtype.type(-beta)


@inner
def _sums_of_squares(x, at, row, c, alpha, k, window, g):
    factor, zero_point = row.dtype.type(alpha / window), row.dtype.type(k)
    row[:] = 0
    for j in range(max(0, c - window // 2), min(g.c, c + (window - 1) // 2 + 1)):
        for w in range(g.w):
            value = x[at + j * g.x_c + w * g.x_w]
            row[w] += value * value
    for w in range(g.w):
        row[w] = zero_point + factor * row[w]


@kernel
def gradient(threads, x, grad, out, workspace, alpha, beta, k, window, g):
    """A thread uses (2 * g.c + 1) * g.w elements of the workspace."""
    for thread in prange(threads):
        begin, end = share(g.n * g.d * g.h, thread, threads)
        size = (2 * g.c + 1) * g.w
        for row in range(begin, end):
            at_x, at_y, _ = row_offsets(row, g)
            own = workspace[thread * size : (thread + 1) * size]
            _gradient_row(x, grad, out, at_x, at_y, own, alpha, beta, k, window, g)


@inner
def _gradient_row(x, grad, out, at_x, at_y, workspace, alpha, beta, k, window, g):
    powers, terms = workspace[: g.c * g.w], workspace[g.c * g.w : 2 * g.c * g.w]
    row = workspace[2 * g.c * g.w :]
    for c in range(g.c):
        _sums_of_squares(x, at_x, row, c, alpha, k, window, g)
        for w in range(g.w):
            power = row[w] ** row.dtype.type(-beta)
            powers[c * g.w + w] = power
            terms[c * g.w + w] = grad[at_y + c * g.y_c + w * g.y_w] * x[at_x + c * g.x_c + w * g.x_w] * power / row[w]
    slope = row.dtype.type(2 * alpha * beta / window)
    for c in range(g.c):
        row[:] = 0  # the sum of channel j reaches c where j lies in the mirrored window
        for j in range(max(0, c - (window - 1) // 2), min(g.c, c + window // 2 + 1)):
            for w in range(g.w):
                row[w] += terms[j * g.w + w]
        for w in range(g.w):
            at = at_x + c * g.x_c + w * g.x_w
            kept = grad[at_y + c * g.y_c + w * g.y_w] * powers[c * g.w + w]
            out[at] = kept if beta == 0 else kept - slope * x[at] * row[w]  # then s is none of it, even if 0
