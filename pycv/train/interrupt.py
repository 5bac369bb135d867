"""Ctrl-C and SIGTERM as a wish that the loop grants between two steps; the second Ctrl-C ends at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Wish:
    """``stop`` is true from the first signal on."""

    def __init__(self) -> None:
        self.stop, self._process = False, os.getpid()

    def note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker of the loader, forked with this handler: it obeys at once
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop = True


@contextmanager
def noted() -> Iterator[Wish]:
    """Inside, signals are noted. Outside of the main thread there are none to note."""
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.signal(number, wish.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
