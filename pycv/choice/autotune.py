"""Measuring the contenders for one problem: interleaved, on random data, within a third of a second.

On a GPU what has to be compiled is compiled before that: seconds for each contender of Triton's that no run has met.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .. import timing, timing_device
from ..kernels import Kernel
from ..problem import Problem
from . import cache, files
from .runs import Call, Operands, call_of

SECONDS = 0.3  # for a problem, all contenders together
HOPELESS = 8.0  # predicted to be this many times slower than the best: not even tried (torch always is)
SLOWER = 3.0  # measured once to be this many times slower: not measured again

Contenders = Sequence[tuple[Kernel, Any]]  # a kernel and its plan; None for torch


def tuned(key: str, problem: Problem, contenders: Contenders, guesses: Mapping[str, float], kept: bool) -> cache.Entry:
    """The measured entry of a key, out of the cache if another thread or process was faster.

    ``guesses``: predicted seconds by name, of those for which there is a prediction.
    """
    try:
        with files.locked(files.cache_dir() / "autotune"):  # two at once would disturb each other
            known = cache.lookup(key, problem.device)
            if known is not None and known.kernel in {kernel.name for kernel, _ in contenders}:
                return known
            entry = _entry(problem, contenders, guesses, kept)
            cache.store(key, entry, problem.device)
            return entry
    except OSError as error:  # no directory for a lock
        cache.warn(cache.path(problem.device), error)
        return _entry(problem, contenders, guesses, kept)


def _entry(problem: Problem, contenders: Contenders, guesses: Mapping[str, float], kept: bool) -> cache.Entry:
    seconds = measure(problem, contenders, guesses, kept)
    return cache.Entry(min(seconds, key=seconds.__getitem__), seconds)


def measure(
    problem: Problem, contenders: Contenders, guesses: Mapping[str, float], kept: bool, budget: float = SECONDS
) -> dict[str, float]:
    """Median seconds of each contender that is worth measuring, by name."""
    deadline = time.perf_counter() + budget
    best = min(guesses.values(), default=0.0)
    promising = [c for c in contenders if c[1] is None or guesses.get(c[0].name, best) <= HOPELESS * best]
    promising.sort(key=lambda c: guesses.get(c[0].name, best))
    sampler = timing_device.Sampler if problem.device == "cuda" else timing.Sampler
    with torch.no_grad(), torch.autocast(problem.device, enabled=False), _unprofiled():
        operands = Operands(problem)
        made = {kernel.name: call_of(kernel, plan, operands, kept) for kernel, plan in promising}
        calls = {name: call for name, call in made.items() if call is not None}
        if problem.device == "cuda":
            _compile(problem, calls)
            deadline = time.perf_counter() + budget
        once = _tried(calls, sampler)
        fastest = min(once.values())
        close = {name: call for name, call in calls.items() if once[name] <= SLOWER * fastest}
        timings = timing.measure(close, deadline - time.perf_counter(), warm_up=0.005, sampler=sampler)
    return once | {name: result.seconds for name, result in timings.items()}


@contextmanager
def _unprofiled() -> Iterator[None]:
    """What is measured is nothing that the user's program did: torch's profiler does not see it."""
    torch._C._autograd._enable_record_function(False)
    try:
        yield
    finally:
        torch._C._autograd._enable_record_function(True)


def _compile(problem: Problem, calls: dict[str, Call]) -> None:
    """Kernels are compiled, and those of torch's libraries loaded, by their first run. Only then it shows which need
    more of this GPU than it has: they are taken out of ``calls``, unless nothing would be left."""
    for name, call in list(calls.items()):
        try:
            call()
        except Exception as error:
            if len(calls) == 1:
                raise
            warnings.warn(f"{name} cannot run {problem} here and is left out: {error}", stacklevel=2)
            del calls[name]


def _tried(calls: Mapping[str, Call], sampler: type[timing.Sampler]) -> dict[str, float]:
    """The better of two runs of each call; a slow one is run once."""
    seconds: dict[str, float] = {}
    for name, call in calls.items():
        for _ in range(2):
            took, _ = sampler(name, call).once()
            seconds[name] = min(took, seconds.get(name, took))
            if took > SECONDS / 10:
                break
    return seconds
