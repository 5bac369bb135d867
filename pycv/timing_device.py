"""How long calls take on a GPU: by CUDA events on the current stream.

A sample is one call between two events. Before it, unless caches are to be warm, a buffer larger than the L2 cache is
written, which evicts what the last call left. Then the device waits for as long as the host takes to queue the call, so
that the time between the events holds no time of the host; only where that takes more than MOST_WAITING does the rest
of it show.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from . import timing

FLUSHED = 2  # times the L2 cache
RESOLUTION = 5e-7  # seconds, of the events
MOST_WAITING = 5e-3  # seconds of the device before a call
CLOCK = 2e9  # of the device, about, whose cycles torch.cuda._sleep counts


def flush_buffer() -> torch.Tensor:
    """What is written before a call that is to find its operands in memory."""
    size = int(FLUSHED * torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size)
    return torch.empty(size, dtype=torch.uint8, device="cuda")


def waiting_for(call: Callable[[], object]) -> int:
    """Cycles that the device is to wait before a call, so that the host has queued all of it by then."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    host = time.perf_counter() - start
    torch.cuda.synchronize()
    return int(CLOCK * min(1.5 * host + 2e-5, MOST_WAITING))  # hosts are not punctual


def elapsed(call: Callable[[], object], waiting: int, buffer: torch.Tensor | None) -> float:
    """Seconds of the device; ``buffer`` is written before, where there is one."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    if buffer is not None:
        buffer.zero_()
    torch.cuda._sleep(waiting)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


class Sampler(timing.Sampler):
    """For :func:`timing.measure`: cold samples of a call that queues work on torch's current stream, and that has been
    compiled by an earlier one."""

    def __init__(self, name: str, call: Callable[[], object]) -> None:
        super().__init__(name, call)
        self.waiting = waiting_for(call)

    def once(self) -> tuple[float, bool]:
        """Its buffer is taken anew, from what torch keeps: held, those of all contenders would fill the device."""
        return max(elapsed(self.call, self.waiting, flush_buffer()), RESOLUTION), True
