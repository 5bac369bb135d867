"""Memory as a program has it that has run for a while: what was freed is there for the next result.

glibc gives the end of its heap back to the system whenever enough of it is free, and the next result costs a page fault
for every 4 KB. Whether that happens depends on what else lies at the end of the heap, so that one contender pays and
another does not: 1.7 or 3.2 ms for the same convolution with a result of 6 MB, for as long as the process lives.
"""

from __future__ import annotations

import ctypes

# Of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 2**25  # glibc keeps nothing larger: such results are fresh in every program, and stay so here
_NEVER = 2**31 - 1


def keep_freed() -> None:
    """From now on, for the whole process: for commands that measure, not for libraries. Other C libraries than glibc
    are left alone."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_TRIM_THRESHOLD, _NEVER)
