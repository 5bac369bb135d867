"""How long calls take on a GPU: by CUDA events, side by side, each sample out of a cold or a warm cache.

A sample is one call between two events. Before it, unless caches are to be warm, a buffer larger than the L2 cache is
written, which evicts what the last call left. Then the device waits for as long as the host takes to queue the call, so
that the time between the events holds no time of the host; only where that takes more than MOST_WAITING does the rest
of it show. What takes the device less than GRAPH_SECONDS is captured in a CUDA graph and replayed, where that can be:
then several launches do not wait for each other's dispatch either.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import torch

from ..nn.prepared import used_by_graphs
from ..timing import MAX_SAMPLES, MIN_SAMPLES, Timing, summarized

FLUSH_BYTES = 2**28
GRAPH_SECONDS = 1e-4
WARMUP_CALLS = 5
MOST_WAITING = 5e-3  # seconds of the device before a call
CLOCK = 2e9  # of the device, about, whose cycles torch.cuda._sleep counts


@contextmanager
def fair() -> Iterator[None]:
    """The vendor's libraries at their best and as exact as ours: cuDNN measures all of its algorithms, nobody uses
    TF32. What is to be measured is prepared within, on the stream of the measurements."""
    matmul, outer = torch.backends.cuda.matmul, torch.cuda.current_stream()
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        _stream().wait_stream(outer)
        switches = torch.backends.cudnn.flags(enabled=True, benchmark=True, benchmark_limit=0, allow_tf32=False)
        with switches, torch.cuda.stream(_stream()):
            yield
        outer.wait_stream(_stream())
    finally:
        matmul.allow_tf32 = before


@cache
def _stream() -> torch.cuda.Stream:
    """All that is measured runs on it, since no graph can capture the default stream, and what a forward pass did there
    binds its gradient to it: autograd runs a node on the stream of its forward pass."""
    return torch.cuda.Stream()


def measure(
    calls: Mapping[str, Callable[[], object]], budget: float, precision: float = 0.02, flush: bool = True
) -> dict[str, Timing]:
    """Times every call on the current device; ``budget`` in seconds and ``precision`` as in :func:`timing.measure`.

    ``flush``: every sample finds its operands in memory, not in the L2 cache.
    """
    deadline = time.perf_counter() + budget
    buffer = _buffer() if flush else None
    samplers = [_Sampler(name, call, buffer) for name, call in calls.items()]
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        rounds = 0
        while samplers and rounds < MAX_SAMPLES:
            for i in range(len(samplers)):
                samplers[(rounds + i) % len(samplers)].sample()
            rounds += 1
            if rounds >= MIN_SAMPLES:
                if time.perf_counter() > deadline:
                    break
                if all(not sampler.result(precision).noisy for sampler in samplers):
                    break
    finally:
        if was_enabled:
            gc.enable()
    return {sampler.name: sampler.result(precision) for sampler in samplers}


def _buffer() -> torch.Tensor:
    return torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")


class _Sampler:
    def __init__(self, name: str, call: Callable[[], object], buffer: torch.Tensor | None) -> None:
        self.name, self.buffer = name, buffer
        self.seconds: list[float] = []
        for _ in range(WARMUP_CALLS):  # choices, plans, cuDNN's search, clocks
            call()
        self._take(call)
        if self._timed() < GRAPH_SECONDS and (graph := captured(call)):
            graph()
            self._take(graph)

    def _take(self, call: Callable[[], object]) -> None:
        """What samples are taken of, and the cycles that the device waits before each."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        host = time.perf_counter() - start
        torch.cuda.synchronize()
        self.call, self.waiting = call, int(CLOCK * min(1.5 * host + 2e-5, MOST_WAITING))  # hosts are not punctual

    def sample(self) -> None:
        self.seconds.append(self._timed())

    def _timed(self) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if self.buffer is not None:
            self.buffer.zero_()
        torch.cuda._sleep(self.waiting)
        begin.record()
        self.call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    def result(self, precision: float) -> Timing:
        return summarized(self.seconds, precision)


def captured(call: Callable[[], object]) -> Callable[[], object] | None:
    """The call as a graph; None where it cannot be captured (it waits for the device, or there are no graphs)."""
    current = torch.cuda.current_stream()
    try:
        graph = torch.cuda.CUDAGraph()
        with used_by_graphs(), torch.cuda.graph(graph, stream=_stream()):  # as without a graph
            call()
    except RuntimeError:
        torch.cuda.set_stream(current)  # where ending the capture fails, torch does not come to it
        torch.cuda.synchronize()
        return None
    return graph.replay
