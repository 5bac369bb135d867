"""The sum over images and positions, one value per channel: the gradient of a bias. One read."""

from __future__ import annotations

import triton
import triton.language as tl

from .channels import block, offsets
from .language import put


@triton.jit
def sums(
    x, parts, channels, positions, count, part_count, x_n, x_c, x_p,
    ACC: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """parts[part, channel]."""
    channel, there, part = block(channels, BC)
    total = tl.zeros([BE, BC], ACC)
    last = tl.minimum((part + 1) * part_count, count)
    for begin in range(part * part_count, last, BE):
        n, position, inside = offsets(begin, last, positions, BE)
        at = n * x_n + position * x_p + channel[None, :] * x_c
        total += tl.load(x + at, mask=inside & there[None, :], other=0).to(ACC)
    tl.store(parts + part * channels + channel, tl.sum(total, 0), mask=there)


@triton.jit
def add(parts, out, channels, count, ACC: tl.constexpr, BLOCK: tl.constexpr):
    channel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = channel < channels
    total = tl.zeros([BLOCK], ACC)
    for part in range(0, count):
        total += tl.load(parts + tl.cast(part, tl.int64) * channels + channel, mask=there, other=0)
    put(out + channel, total, there)
