"""How long calls take on a GPU: samples for :func:`timing.measure`, by CUDA events on the current stream.

A sample is one call between two events. Before it a buffer larger than the L2 cache is written: that evicts what the
last call left, and keeps the device busy while the next one is queued, so that little of the host's time lies between
the events.
"""

from __future__ import annotations

import torch

from . import timing

FLUSHED = 2  # times the L2 cache
RESOLUTION = 5e-7  # seconds, of the events


class Sampler(timing.Sampler):
    """Of a call that queues work on torch's current stream, and has been compiled."""

    def once(self) -> tuple[float, bool]:
        size = FLUSHED * torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.empty(size, dtype=torch.uint8, device="cuda").zero_()
        begin.record()
        self.call()
        end.record()
        end.synchronize()
        return max(begin.elapsed_time(end) / 1e3, RESOLUTION), True
