"""Sums per channel over images and positions, in parts: what the norms have in common.

A program takes BC channels and one part of the elements (images and positions, in the order of memory), BE at a time.
The parts follow one another in the workspace and are added up in their order: deterministic, no atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def block(channels, BC: tl.constexpr):
    """(channels of the program, which of them there are, its part)."""
    tiles = tl.cdiv(channels, BC)
    channel = tl.program_id(0) % tiles * BC + tl.arange(0, BC)
    return channel.to(tl.int64), channel < channels, (tl.program_id(0) // tiles).to(tl.int64)


@triton.jit
def offsets(begin, last, positions, BE: tl.constexpr):
    """(image, position) of the elements from ``begin`` on, as columns, and which of them lie before ``last``."""
    element = (begin + tl.arange(0, BE)).to(tl.int64)[:, None]
    return element // positions, element % positions, element < last
