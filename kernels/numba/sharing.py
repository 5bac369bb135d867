"""How many threads a piece of work is worth, and which part of it each takes."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from .compiled import inner

GRAIN = 32768  # elementary steps below which another thread costs more than it brings


def worthwhile(threads: int, steps: int, items: int) -> int:
    """Of ``threads`` those that are worth it for so many steps in so many indivisible items; 1 at least."""
    return max(1, min(threads, steps // GRAIN + 1, items))


def round_up(value: int, step: int) -> int:
    return -(-value // step) * step


@register_jitable
def apart(elements):
    """From one thread's elements of a workspace to the next one's: two that write into one cache line wait for each
    other at every write. 32 are two lines of float32."""
    return -(-elements // 32) * 32


@inner
def share(items, thread, threads):
    """The first item of a thread, and the first that is not its own any more."""
    before = np.int64(thread)  # the index of a parallel loop is unsigned; with a signed number it would make a float
    return items * before // threads, items * (before + 1) // threads
