"""One fuzzing trial, and the shrinking of a trial that failed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from pycv import registry
from pycv.kernels import Kernel
from pycv.problem import ConvProblem, GemmProblem, Layout, Matrix, NormProblem, PointwiseProblem, PoolProblem, Problem

from .. import compare, draw, raw
from ..backend import BACKEND


@dataclass(frozen=True)
class Variant:
    """All of a trial that is not in the problem."""

    kind: str = "integers"
    seed: int = 0
    threads: int = 1
    workspace_limit: int = 2**28
    offset: int = 1
    prepare: bool = True
    tile: int = 0  # which one, of a kernel that has the choice; 0: its own


def variants() -> Iterator[Variant]:
    """What a problem is repeated with: every kind of data, thread count and workspace limit."""
    for seed, limit, threads, kind in product(range(3), (2**28, 0), (1, 2, 3), draw.KINDS):
        yield Variant(kind, seed, threads, limit, offset=seed, prepare=seed % 2 == 0, tile=seed)


def kernels(problem: Problem) -> list[Kernel]:
    """The kernels of the backend under test that support a problem."""
    return kernels_of(BACKEND, problem)


def kernels_of(backend: str, problem: Problem) -> list[Kernel]:
    entries = registry.kernels(problem.op, problem.pass_)
    return [kernel for kernel in entries if kernel.backend == backend and kernel.supports(problem) is None]


def in_tile(kernel: Kernel, problem: Problem, number: int) -> Kernel:
    """The kernel with this one of its tiles, counted round and round."""
    tiles = kernel.in_tiles(problem)
    return tiles[number % len(tiles)]


def trial(problem: Problem, kernel: Kernel, variant: Variant) -> str | None:
    """Runs the problem once; what is wrong with the result, or None."""
    rng = np.random.default_rng((variant.seed, zlib.crc32(str(problem).encode())))
    arrays, scalars = draw.data(problem, variant.kind, rng)
    read, numeric_class = compare.as_read(kernel, problem, arrays)
    exact = draw.is_exact(problem, variant.kind) and numeric_class == "strict"
    try:
        computed = raw.run(
            problem, in_tile(kernel, problem, variant.tile), arrays, scalars,
            variant.threads, variant.workspace_limit, variant.offset, variant.prepare,
        )  # fmt: skip
        compare.assert_close(problem, computed, read, exact, numeric_class, **scalars)
    except AssertionError as error:
        return str(error)
    return None


def fails(problem: Problem, kernel: Kernel, first: Variant | None = None) -> tuple[Variant, str] | None:
    """The first variant with which a problem fails, and how."""
    for variant in ([first] if first else []) + list(variants()):
        if (message := trial(problem, kernel, variant)) is not None:
            return variant, message
    return None


def shrink(problem: Problem, kernel: Kernel, variant: Variant) -> Problem:
    """A smaller problem that still fails: the first simplification that does, again and again."""
    while True:
        for simpler in simplifications(problem):
            if draw.valid(simpler) and kernel.supports(simpler) is None and fails(simpler, kernel, variant):
                problem = simpler
                break
        else:
            return problem


def simplifications(problem: Problem) -> Iterator[Problem]:
    """Problems that differ from this one in one respect, in which they are simpler; the boldest first."""
    seen = {problem}
    for simpler in _simplifications(problem):
        if simpler not in seen:
            seen.add(simpler)
            yield simpler


def _simplifications(p: Problem) -> Iterator[Problem]:
    if isinstance(p, PointwiseProblem):
        yield replace(p, mask=False)
        yield from (replace(p, count=count) for count in _smaller(p.count, 0))
        return
    for name in ("input", "weight", "output", "a", "b", "out", "residual"):
        value = getattr(p, name, None)
        if isinstance(value, Layout):
            yield from (replace(p, **{name: plain}) for plain in (Layout(), Layout(value.name)))
        elif isinstance(value, Matrix):
            yield from (replace(p, **{name: plain}) for plain in (Matrix(), Matrix("col")))
    if isinstance(p, ConvProblem | GemmProblem | NormProblem):
        for step in p.epilogue:
            rest = tuple(other for other in p.epilogue if other != step)
            yield replace(p, epilogue=rest, residual=p.residual if "residual" in rest else None)
    if isinstance(p, ConvProblem):
        yield from (replace(p, prologue=tuple(other for other in p.prologue if other != step)) for step in p.prologue)
    if isinstance(p, ConvProblem) and p.groups > 1:
        yield replace(p, groups=1, c=p.c // p.groups, k=p.k // p.groups)
        yield replace(p, groups=p.groups - 1, c=p.c - p.c // p.groups, k=p.k - p.k // p.groups)
    for name in ("batch", "n", "m", "k", "c"):
        if hasattr(p, name):
            step = p.groups if isinstance(p, ConvProblem) and name in "kc" else 1
            yield from (replace(p, **{name: value * step}) for value in _smaller(getattr(p, name) // step, 1))
    if isinstance(p, NormProblem):
        yield from (replace(p, window=window) for window in _smaller(p.window, 1))
    if isinstance(p, PoolProblem):
        yield replace(p, divisor=0, count_include_pad=True)
    for name, least in (("size", 1), ("output_size", 1), ("filter", 1), ("stride", 1), ("dilation", 1), ("padding", 0)):
        yield from _smaller_axes(p, name, least)
    yield from _shorter(p)


def _smaller(value: int, least: int) -> Iterator[int]:
    for smaller in (least, value // 2, value - 1):
        if least <= smaller < value:
            yield smaller


def _smaller_axes(p: Problem, name: str, least: int) -> Iterator[Problem]:
    values = getattr(p, name, ())
    for axis, value in enumerate(values):
        for smaller in _smaller(value, least):
            yield replace(p, **{name: (*values[:axis], smaller, *values[axis + 1 :])})


def _shorter(p: Problem) -> Iterator[Problem]:
    """One window fewer along an axis, and the input shorter by a stride."""
    if not isinstance(p, ConvProblem | PoolProblem) or not p.stride:
        return
    for axis, (size, out, stride) in enumerate(zip(p.size, p.output_size, p.stride, strict=True)):
        for fewer in (out // 2, 1):
            if out > fewer >= 1 and size > fewer * stride:
                sizes, outs = list(p.size), list(p.output_size)
                sizes[axis], outs[axis] = size - fewer * stride, out - fewer
                yield replace(p, size=tuple(sizes), output_size=tuple(outs))
