"""Whether this process is the child of one that had imported pycv: of its parent's threads it has none.

The OpenMP runtime does not know and would wait for them for ever, so that such a process computes on one thread.
"""

from __future__ import annotations

import os

forked = False


def _after_fork() -> None:
    global forked
    forked = True


os.register_at_fork(after_in_child=_after_fork)
