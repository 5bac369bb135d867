"""How long calls take on a GPU, side by side, each sample (timing_device.py) out of a cold or a warm cache.

What takes the device less than GRAPH_SECONDS is captured in a CUDA graph and replayed, where that can be: then several
launches do not wait for each other's dispatch.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import torch

from ..nn.prepared import used_by_graphs
from ..timing import FEW_SAMPLES, MAX_SAMPLES, MIN_SAMPLES, Timing, summarized
from ..timing_device import elapsed, flush_buffer, waiting_for
from .contenders import Unavailable

GRAPH_SECONDS = 1e-4
WARMUP_CALLS = 3
LEAST_CALLS = 15  # that a time takes, warm-up included
SHORT_SECONDS = 1.0  # that every call may have, however little is left


@contextmanager
def fair(tf32: bool = False) -> Iterator[None]:
    """The vendor's libraries at their best and as exact as ours: cuDNN measures all of its algorithms, and convolutions
    and products of f32 are rounded to TF32 where that is asked for, nowhere else. What is to be measured is prepared
    within, on the stream of the measurements."""
    matmul, outer = torch.backends.cuda.matmul, torch.cuda.current_stream()
    before, matmul.allow_tf32 = matmul.allow_tf32, tf32
    try:
        _stream().wait_stream(outer)
        switches = torch.backends.cudnn.flags(enabled=True, benchmark=True, benchmark_limit=0, allow_tf32=tf32)
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
    calls: Mapping[str, Callable[[], object]],
    budget: float,
    precision: float = 0.02,
    flush: bool = True,
    patience: float = 0.0,
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Times every call on the current device; ``budget`` in seconds and ``precision`` as in :func:`timing.measure`.

    ``flush``: every sample finds its operands in memory, not in the L2 cache.

    Also returns, in words, why calls were left out: LEAST_CALLS of one would take longer than SHORT_SECONDS and than
    what is left of the budget or, where that is more, of ``patience`` (seconds as well).
    """
    start = time.perf_counter()
    buffer = flush_buffer() if flush else None
    samplers, reasons = [], {}
    for name, call in calls.items():
        try:
            samplers.append(_Sampler(name, call, buffer, start + max(budget, patience)))
        except Unavailable as reason:
            reasons[name] = str(reason)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        rounds = 0
        while samplers and rounds < MAX_SAMPLES:
            for i in range(len(samplers)):
                samplers[(rounds + i) % len(samplers)].sample()
            rounds += 1
            if rounds >= FEW_SAMPLES and time.perf_counter() > start + budget:
                break
            if rounds >= MIN_SAMPLES and all(not sampler.result(precision).noisy for sampler in samplers):
                break
    finally:
        if was_enabled:
            gc.enable()
    return {sampler.name: sampler.result(precision) for sampler in samplers}, reasons


class _Sampler:
    """One call and its samples. Raises Unavailable for one that could not be measured by the deadline."""

    def __init__(self, name: str, call: Callable[[], object], buffer: torch.Tensor | None, deadline: float) -> None:
        self.name, self.buffer = name, buffer
        self.seconds: list[float] = []
        call()  # choices, plans, cuDNN's search
        _refuse_long(call, deadline)
        for _ in range(WARMUP_CALLS):
            call()
        self._take(call)
        if self._timed() < GRAPH_SECONDS and (graph := captured(call)):
            graph()
            self._take(graph)

    def _take(self, call: Callable[[], object]) -> None:
        """What samples are taken of, and the cycles that the device waits before each."""
        self.call, self.waiting = call, waiting_for(call)

    def sample(self) -> None:
        self.seconds.append(self._timed())

    def _timed(self) -> float:
        return elapsed(self.call, self.waiting, self.buffer)

    def result(self, precision: float) -> Timing:
        return summarized(self.seconds, precision)


def _refuse_long(call: Callable[[], object], deadline: float) -> None:
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    left = max(0.0, deadline - time.perf_counter())
    if LEAST_CALLS * seconds > max(left, SHORT_SECONDS):
        raise Unavailable(f"no time: a call takes {seconds:.2g} s, and {left:.2g} s are left")


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
