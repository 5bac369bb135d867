"""channel_sum: the sum over images and positions, one value per channel: the gradient of a per-channel bias.

One read of x, bound by memory bandwidth (channels.py says how it is walked).
"""

from __future__ import annotations

from numba import prange

from .channels import CHUNK, add_parts, row_offsets, row_sum, strided_row
from .compiled import inner, kernel
from .sharing import apart, share


@kernel
def forward(threads, x, out, workspace, g):
    """A thread has apart(2 * g.block) elements of the workspace, which are float64."""
    for thread in prange(threads):
        begin, end = share(-(-g.c // g.block), thread, threads)
        for block in range(begin, end):
            _sum(block * g.block, x, out, workspace, thread * apart(2 * g.block), g)


@inner
def _sum(first, x, out, workspace, at, g):
    channels = min(g.block, g.c - first)
    totals, parts = workspace[at : at + channels], workspace[at + g.block : at + g.block + channels]
    totals[:] = 0
    parts[:] = 0
    for row in range(g.n * g.d * g.h):
        from_, _, _ = row_offsets(row, g)
        from_ += first * g.x_c
        if g.block == 1:
            for w in range(0, g.w, CHUNK):
                at, count = from_ + w * g.x_w, min(CHUNK, g.w - w)
                if g.x_w == 1:
                    totals[0] += row_sum(x[at : at + count])
                else:
                    totals[0] += row_sum(strided_row(x, at, g.x_w, count))
        else:
            for w in range(g.w):
                pixel = x[from_ + w * g.x_w : from_ + w * g.x_w + channels]
                for c in range(channels):
                    parts[c] += pixel[c]
            add_parts(totals, parts)
    for c in range(channels):
        out[first + c] = totals[c]
