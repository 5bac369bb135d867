"""relu: max(x, 0), and its gradient; a block of elements per program, which reads and writes each once."""

from __future__ import annotations

import triton
import triton.language as tl

from .language import put


@triton.jit
def forward(x, y, count, ACC: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < count, other=0).to(ACC)
    put(y + i, tl.where(value < 0, 0.0, value), i < count)


@triton.jit
def gradient(y, grad, out, count, ACC: tl.constexpr, BLOCK: tl.constexpr):
    """``y``: the forward's output. NaN lets the gradient through."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(y + i, mask=i < count, other=0).to(ACC)
    slope = tl.load(grad + i, mask=i < count, other=0).to(ACC)
    put(out + i, tl.where(value <= 0, 0.0, slope), i < count)
