"""The classes of problems and what each has to reach; which problems belong to one, and drawing more of its kind.

A class is a shape of problems, not a list: whether a layer of a network belongs to it, and what is drawn from a seed,
follow from the same bounds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from pycv.bench.goals import Goal
from pycv.bench.problems import Case, load
from pycv.problem import (
    ConvProblem,
    GemmProblem,
    Matrix,
    NormProblem,
    PointwiseProblem,
    PoolProblem,
    Problem,
    output_size,
)

NETWORKS = ("alexnet", "vgg16", "resnet18", "resnet50", "mobilenet_v2")
OTHERS = ("pools", "norms", "gemm", "large_kernels")
BATCHES = (1, 8)
MAX_FLOPS, MAX_BYTES = 4e9, 2e8  # of a drawn problem
P = TypeVar("P", bound=Problem)


@dataclass(frozen=True)
class Class:
    """Goals and the problems that they are for: ``belongs`` judges a layer, ``draw`` makes another of its kind.

    ``change`` makes the problem of the class out of one that belongs (another pass, an epilogue).
    """

    goal: Goal
    belongs: Callable[[Problem], bool]
    draw: Callable[[random.Random], Problem] | None
    change: Callable[[Problem], Problem] = lambda p: p
    batches: tuple[int, ...] = BATCHES

    @property
    def name(self) -> str:
        return self.goal.name


@dataclass(frozen=True)
class Conv:
    """Bounds of 2-d convolutions with square filters: outputs ``low`` to ``high`` wide.

    What is drawn has 32 channels or more; a stem has 1 to 4, those of an image.
    """

    filters: tuple[int, ...]
    stride: tuple[int, ...] = (1,)
    low: int = 7
    high: int = 224
    depthwise: bool = False
    stem: bool = False

    def belongs(self, p: Problem) -> bool:
        return (
            isinstance(p, ConvProblem)
            and p.op == "conv2d"
            and p.filter[0] in self.filters
            and p.stride[0] in self.stride
            and self.low <= p.output_size[0] <= self.high
            and p.groups == (p.c if self.depthwise else 1)
        )

    def draw(self, source: random.Random) -> ConvProblem:
        while True:
            f, u = source.choice(self.filters), source.choice(self.stride)
            out = round(_log_uniform(source, self.low, min(self.high, 112)))
            size = (out - 1) * u + source.randint(1, u)
            c = source.randint(1, 4) if self.stem else _channels(source, 32, 960 if self.depthwise else 512)
            k = c if self.depthwise else _channels(source, 32, 512)
            padding = (f // 2,) * 2
            outs = output_size((size,) * 2, (f,) * 2, (u,) * 2, padding, (1, 1))
            p = ConvProblem(
                "conv2d", "forward", source.choice(BATCHES), c, (size,) * 2, k, (f,) * 2, outs, (u,) * 2, padding,
                (1, 1), c if self.depthwise else 1,
            )  # fmt: skip
            if self.belongs(p) and p.flops <= MAX_FLOPS and p.bytes <= MAX_BYTES:
                return p


def _log_uniform(source: random.Random, low: float, high: float) -> float:
    return math.exp(source.uniform(math.log(low), math.log(high)))


def _channels(source: random.Random, low: int, high: int) -> int:
    count = round(_log_uniform(source, low, high))
    return count if source.random() < 0.2 else round(count / 8) * 8


def _plain(p: ConvProblem, **changes) -> ConvProblem:
    return replace(p, epilogue=(), residual=None, **changes)


def _conv(goal: Goal, bounds: Conv, **changes) -> Class:
    return Class(goal, bounds.belongs, bounds.draw, lambda p: _plain(p, **changes))


# ------------------------------------------------------------------------------------------------ other ops


def _pool_draw(op: str, indices: str = "") -> Callable[[random.Random], PoolProblem]:
    def draw(source: random.Random) -> PoolProblem:
        n, c, s = source.choice(BATCHES), _channels(source, 16, 512), round(_log_uniform(source, 14, 112))
        if op.startswith("adaptive"):
            return PoolProblem(op, "forward", n, c, (s, s), (source.choice((1, 2, 6, 7)),) * 2)
        f, pad = source.choice(((2, 0), (3, 0), (3, 1)))
        window = ((f, f), (2, 2), (pad, pad))
        return PoolProblem(op, "forward", n, c, (s, s), output_size((s, s), *_ordered(window)), *window, (1, 1),
                           indices=indices)  # fmt: skip

    return draw


def _ordered(window):
    return (*window, (1, 1))


def _pool(goal: Goal, ops: tuple[str, ...], indices: str = "") -> Class:
    def belongs(p: Problem) -> bool:
        return isinstance(p, PoolProblem) and p.op in ops and p.indices == indices

    return Class(goal, belongs, lambda source: _pool_draw(source.choice(ops), indices)(source))


def _norm_draw(source: random.Random) -> NormProblem:
    s = round(_log_uniform(source, 7, 112))
    n, c = source.choice(BATCHES), _channels(source, 16, 1024)
    return NormProblem("batch_norm", "forward", n, min(c, int(4e6 / (n * s * s)) or 1), (s, s), training=True)


def _large_gemm(p: Problem) -> bool:
    return isinstance(p, GemmProblem) and min(p.m, p.n, p.k) >= 1024


def _small_gemm(p: Problem) -> bool:
    return isinstance(p, GemmProblem) and not _large_gemm(p)


def _gemm_draw(low: int, high: int, thin: bool) -> Callable[[random.Random], GemmProblem]:
    def draw(source: random.Random) -> GemmProblem:
        m, n, k = (round(_log_uniform(source, low, high)) for _ in range(3))
        if thin:
            m = source.choice((1, 2, 4, 8, 16, m))
        return GemmProblem(m, n, k, b=Matrix(source.choice(("row", "col"))))

    return draw


# ------------------------------------------------------------------------------------------------- the table

_WIDE, _MIDDLE, _SMALL = Conv((3,), low=28), Conv((3,), low=10, high=27), Conv((3,), low=1, high=9)
_POINTWISE, _STRIDED, _STEM = Conv((1,), (1, 2), low=1), Conv((3,), (2,), low=1), Conv((7,), (2,), low=14, stem=True)
_BIG_STEM = Conv((11,), (4,), low=14, stem=True)


def _fused(p: ConvProblem) -> ConvProblem:
    return replace(p, epilogue=("bias", "relu"), residual=None)


def _large(filters: int, depthwise: bool) -> Callable[[Problem], bool]:
    return lambda p: isinstance(p, ConvProblem) and p.filter[0] == filters and (p.groups > 1) == depthwise


CLASSES: tuple[Class, ...] = (
    _conv(Goal("3x3 s1 >=28", 2.5, 3.0), _WIDE),
    _conv(Goal("3x3 s1 14", 2.0, 2.5), _MIDDLE),
    _conv(Goal("3x3 s1 7", 1.9, 2.2), _SMALL),
    _conv(Goal("3x3 s1 >=28 prepacked", 2.0, 2.5, rivals="prepacked", rotated=True), _WIDE),
    _conv(Goal("3x3 s1 14 prepacked", 1.4, 1.8, rivals="prepacked", rotated=True), _MIDDLE),
    _conv(Goal("3x3 s1 7 prepacked", 1.2, 1.4, rivals="prepacked", rotated=True), _SMALL),
    _conv(Goal("5x5 s1", 1.5, 2.0), Conv((5,))),
    _conv(Goal("1x1", 1.0, 1.15), _POINTWISE),
    Class(Goal("1x1 bias+relu", 1.3, 1.5), _POINTWISE.belongs, _POINTWISE.draw, _fused),
    _conv(Goal("3x3 s2", 1.1, 1.4), _STRIDED),
    _conv(Goal("7x7 s2 stem", 1.2, 1.6), _STEM),
    _conv(Goal("11x11 s4 stem", 1.5, 2.0), _BIG_STEM),
    _conv(Goal("depthwise", 1.1, 1.8, must_nchw=2.5), Conv((3, 5), (1, 2), low=4, depthwise=True)),
    _pool(Goal("max-pool", 1.6, 3.0), ("max_pool2d",)),
    _pool(Goal("max-pool indices", 8.0, 20.0, layout="nchw"), ("max_pool2d",), indices="int64"),
    _pool(Goal("avg-pool", 1.2, 2.0, must_nchw=5.0), ("avg_pool2d", "adaptive_avg_pool2d")),
    Class(
        Goal("batch_norm training", 1.2, 2.0, passes=("forward", "grad_input")),
        lambda p: isinstance(p, NormProblem) and p.training,
        _norm_draw,
    ),
    Class(Goal("sgemm >=1024", 1.1, 1.2, rivals="product"), _large_gemm, _gemm_draw(1024, 1600, False), batches=(1,)),
    Class(Goal("sgemm small", 0.95, 1.2, rivals="product"), _small_gemm, _gemm_draw(16, 1024, True)),
    _conv(Goal("grad_input 3x3 s1", 1.8, 2.5), Conv((3,), low=1), pass_="grad_input"),
    _conv(Goal("grad_input 3x3 s2", 1.5, 2.0), _STRIDED, pass_="grad_input"),
    _conv(Goal("grad_input 1x1", 1.2, 2.0), _POINTWISE, pass_="grad_input"),
    _conv(Goal("grad_input 7x7 stem", 4.0, 6.0), _STEM, pass_="grad_input"),
    _conv(Goal("grad_weight 3x3 s1", 1.3, 2.0), Conv((3,), low=1), pass_="grad_weight"),
    _conv(Goal("grad_weight 3x3 s2", 1.0, 1.3), _STRIDED, pass_="grad_weight"),
    _conv(Goal("grad_weight 1x1", 1.0, 1.3), _POINTWISE, pass_="grad_weight"),
    _conv(Goal("grad_weight stems", 1.0, 1.3), Conv((7, 11), (2, 4), low=14, stem=True), pass_="grad_weight"),
    _conv(Goal("grad_weight 5x5 s1", 1.0, 1.3), Conv((5,)), pass_="grad_weight"),
    Class(Goal("31x31", 8.0, 15.0), _large(31, False), None),
    Class(Goal("31x31 not prepared", 2.0, 4.0, kept=False), _large(31, False), None),
    Class(Goal("15x15", 3.0, 5.0), _large(15, False), None),
    Class(Goal("31x31 depthwise", 1.8, 3.0), _large(31, True), None),
    Class(Goal("relu", 0.95, 1.0), lambda p: isinstance(p, PointwiseProblem), None, batches=(1,)),
)  # fmt: skip


def cases(one: Class, layers: Iterable[Case], drawn: int, seed: int) -> Iterator[Case]:
    """The layers that belong to a class, each in every batch size, and ``drawn`` more of its kind."""
    seen = set()
    for layer in layers:
        if one.belongs(layer.problem):
            for batch in one.batches:
                problem = one.change(_batched(layer.problem, batch))
                if problem not in seen:
                    seen.add(problem)
                    yield Case(f"{layer.name} b{batch}" if len(one.batches) > 1 else layer.name, problem)
    if one.draw is not None:
        source = random.Random(f"{seed} {one.name}")
        for number in range(drawn):
            yield Case(f"drawn {number}", one.change(one.draw(source)))


def layers() -> list[Case]:
    """Every distinct layer of the networks and of the other sets, in nchw."""
    found: dict[Problem, Case] = {}
    for name in (*NETWORKS, *OTHERS):
        for one in load(name):
            if name in NETWORKS and isinstance(one.problem, NormProblem):
                continue  # the set `norms` stands for them
            problem = _without_bias(_batched(one.problem, 1))
            found.setdefault(problem, Case(f"{name} {one.name}", problem))
    return list(found.values())


def _without_bias(p: Problem) -> Problem:
    return _plain(p) if isinstance(p, ConvProblem) else p


def _batched(p: P, batch: int) -> P:
    if isinstance(p, GemmProblem):
        return p
    return p if isinstance(p, PointwiseProblem) else replace(p, n=batch)  # type: ignore[return-value]
