"""Every kernel, what it supports, and which one runs.

``choose`` is asked once per problem and settings; the ops keep its answer in their own dictionaries. What runs is
recorded while somebody listens (``record``): the call log of the tests and of ``pycv.explain``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from .kernels import Kernel
from .kernels import cpu as _cpu_backend
from .problem import Problem
from .settings import NUMERIC_CLASSES, Settings


class UnsupportedError(NotImplementedError):
    """The backend or algorithm that was asked for cannot run this problem; the message says why."""


@dataclass(frozen=True)
class Choice:
    """The answer of :func:`choose`. ``plan`` is None where torch runs the problem."""

    problem: Problem
    kernel: Kernel
    plan: Any
    reason: str
    rejected: tuple[str, ...] = ()


def _always(problem: Problem) -> None:
    return None


@cache
def _by_op() -> dict[tuple[str, str], tuple[Kernel, ...]]:
    table: dict[tuple[str, str], list[Kernel]] = {}
    for kernel in _cpu_backend.KERNELS:
        table.setdefault((kernel.op, kernel.pass_), []).append(kernel)
    for (op, pass_), kernels in table.items():
        kernels.append(Kernel(op, pass_, "torch", "torch", _always, None))
    return {key: tuple(kernels) for key, kernels in table.items()}


def kernels(op: str | None = None, pass_: str | None = None) -> list[Kernel]:
    """All registered kernels, optionally of one op (``conv2d``) and pass; torch's own is the last of each."""
    return [k for (o, p), ks in _by_op().items() if op in (None, o) and pass_ in (None, p) for k in ks]


@cache
def algorithms() -> dict[str, set[str]]:
    """The algorithm names of each ``op.pass``, and the names of their variants (``winograd/f4``)."""
    return {
        f"{op}.{pass_}": {name for k in ks for name in (k.algorithm, k.full_algorithm)}
        for (op, pass_), ks in _by_op().items()
    }


def choose(problem: Problem, settings: Settings, threads: int) -> Choice:
    """Which kernel runs a problem under these settings, with its plan.

    Raises
    ------
    UnsupportedError
        If ``settings.backend`` or ``settings.algorithm`` leaves no kernel that supports the problem.
    """
    candidates = _by_op()[problem.op, problem.pass_]
    rejected: list[str] = []
    allowed = []
    for kernel in candidates:
        reason = _why_not(kernel, problem, settings)
        if reason is None:
            allowed.append(kernel)
        else:
            rejected.append(f"{kernel.name}: {reason}")
    if not allowed:
        raise UnsupportedError(f"no kernel for {problem}: " + "; ".join(rejected))
    preferred = settings.wanted(settings.prefer, problem.op, problem.pass_)
    for kernel in allowed:
        if preferred in (kernel.algorithm, kernel.full_algorithm):
            return _planned(problem, kernel, settings, threads, "preferred", rejected)
    kernel, reason = _default(problem, allowed, settings)
    return _planned(problem, kernel, settings, threads, reason, rejected)


def _why_not(kernel: Kernel, problem: Problem, settings: Settings) -> str | None:
    if settings.backend not in (None, kernel.backend):
        return f"backend={settings.backend!r} was asked for"
    wanted = settings.wanted(settings.algorithm, problem.op, problem.pass_)
    has_it = wanted in algorithms()[f"{problem.op}.{problem.pass_}"]
    if wanted is not None and has_it and wanted not in (kernel.algorithm, kernel.full_algorithm):
        return f"algorithm={wanted!r} was asked for"
    loosest = settings.precision or "default"
    if NUMERIC_CLASSES.index(kernel.numeric_class) > NUMERIC_CLASSES.index(loosest):
        return f"numeric class {kernel.numeric_class} is looser than precision={loosest!r}"
    deterministic = settings.deterministic
    if deterministic is None:
        deterministic = torch.are_deterministic_algorithms_enabled()
    if deterministic and not kernel.deterministic:
        return "not deterministic"
    return kernel.supports(problem)


def _default(problem: Problem, allowed: list[Kernel], settings: Settings) -> tuple[Kernel, str]:
    """The first supporting kernel in registry order that does not leave the problem to a later one."""
    best = next((kernel for kernel in allowed if kernel.shuns(problem) is None), allowed[0])
    if (settings.backend, settings.algorithm) != (None, None):
        return best, "asked for"
    if len(allowed) == 1:
        return best, "the only one that supports it"
    return best, allowed[0].shuns(problem) or "first in registry order"


def _planned(problem, kernel, settings, threads, reason, rejected) -> Choice:
    plan = kernel.plan(problem, threads, settings.workspace_limit) if kernel.plan is not None else None
    return Choice(problem, kernel, plan, reason, tuple(rejected))


# ---------------------------------------------------------------------------------------------- call log


@dataclass
class Call:
    """One recorded run of a kernel (or of torch in its place)."""

    choice: Choice
    seconds: float
    thread: int = field(default_factory=threading.get_ident)


recorders: list[list[Call]] = []  # empty almost always: the ops test its truth before anything else


@contextmanager
def record() -> Iterator[list[Call]]:
    """Collects every call of every thread inside the block, in the order in which they end."""
    calls: list[Call] = []
    recorders.append(calls)
    try:
        yield calls
    finally:
        recorders[:] = [calls_ for calls_ in recorders if calls_ is not calls]


RANGE = "pycv.call"  # the profiler range around every recorded call


@contextmanager
def timed(choice: Choice) -> Iterator[None]:
    """Times one run and hands it to the recorders. To torch's profiler the run is a range named ``RANGE``."""
    with torch._C._profiler._RecordFunctionFast(RANGE):
        start = time.perf_counter()
        yield
        call = Call(choice, time.perf_counter() - start)
        for calls in recorders:
            calls.append(call)
