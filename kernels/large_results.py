"""Results for which malloc maps fresh memory on every call: asked for in huge pages before a kernel writes them.

Touching fresh memory costs a page fault for every 4 KB, and beyond 32 MB (the most that glibc keeps for later) each
result is fresh: faults then take longer than most kernels. In pages of 2 MB they are 500 times fewer. Linux grants them
where /sys/kernel/mm/transparent_hugepage/enabled says ``madvise`` or ``always``; elsewhere nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pycv.problem import ITEMSIZES, ConvProblem, GemmProblem, NormProblem, PointwiseProblem, PoolProblem, Problem

LEAST_BYTES = 2**25

Advise = Callable[[int, int], None]  # of an address and bytes


class LargeResult:
    """A plan whose result is large: the plan, but that launching it gives the advice first."""

    def __init__(self, plan: Any, advise: Advise, place: int, size: int):
        self._plan = plan
        self.launch = _advising(plan.launch, advise, place, size)
        if hasattr(plan, "launch_plain"):
            self.launch_plain = _advising(plan.launch_plain, advise, place, size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plan, name)


def _advising(launch: Callable[..., None], advise: Advise, place: int, size: int) -> Callable[..., None]:
    def advised(*arguments) -> None:
        advise(arguments[place], size)
        launch(*arguments)

    return advised


def wrapped(plan: Any, problem: Problem, advise: Advise) -> Any:
    """The plan, or where its result is large one that gives the advice."""
    place, size = _result(problem)
    return plan if size < LEAST_BYTES else LargeResult(plan, advise, place, size)


def result_bytes(p: Problem) -> int:
    return _result(p)[1]


def _result(p: Problem) -> tuple[int, int]:
    """Which argument of ``launch`` is the result's address, and its size in bytes."""
    itemsize = ITEMSIZES.get(p.dtype, 0)
    if isinstance(p, ConvProblem):
        if p.pass_ == "grad_weight":
            return 1, itemsize * p.k * (p.c // p.groups) * math.prod(p.filter)
        forward = p.pass_ == "forward"
        return (2 if forward else 0), itemsize * p.n * (p.k if forward else p.c) * math.prod(p.computed_size)
    if isinstance(p, GemmProblem):
        return 2, itemsize * p.batch * p.m * p.n
    if isinstance(p, PoolProblem):
        forward = p.pass_ == "forward"
        return (1 if forward else 0), itemsize * p.n * p.c * math.prod(p.output_size if forward else p.size)
    if isinstance(p, NormProblem):
        return 2, itemsize * p.n * p.c * math.prod(p.size)
    assert isinstance(p, PointwiseProblem)
    return 2, itemsize * p.count
