"""Draws problems and data for them: for the fuzzer from a seeded generator, for hypothesis from its strategies.

Sizes gather around the edges of tiles and vectors. Convolutions are drawn from the output backwards, so that every
combination of sizes, stride, padding, dilation and explicit output size is reached, however odd.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np

from pycv.kernels import reference
from pycv.problem import (
    PROLOGUES,
    ConvProblem,
    GemmProblem,
    Layout,
    Matrix,
    NormProblem,
    PointwiseProblem,
    PoolProblem,
    Problem,
    Sizes,
    has_offsets,
)

from . import raw
from .backend import on_device
from .dtypes import COMPUTED_IN, rounded

T = TypeVar("T")
EDGES = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 47, 48, 49, 63, 64, 65, 70)
BUDGET = 150_000  # multiply-adds of a drawn problem, roughly: what keeps the reference fast
KINDS = ("integers", "normal", "nonfinite")


class Source(Protocol):
    """Where choices come from."""

    def integer(self, low: int, high: int) -> int: ...

    def pick(self, items: Sequence[T]) -> T: ...


class Generator:
    """Choices from a seeded generator."""

    def __init__(self, seed: int | str):
        self.random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.random.random() * len(items))]


class Strategy:
    """Choices from hypothesis, which shrinks them: ``Strategy(data)`` of a test that takes ``data=st.data()``."""

    def __init__(self, data: Any):
        from hypothesis import strategies

        self.data, self.strategies = data, strategies

    def integer(self, low: int, high: int) -> int:
        return self.data.draw(self.strategies.integers(low, high))

    def pick(self, items: Sequence[T]) -> T:
        return self.data.draw(self.strategies.sampled_from(list(items)))


# ---------------------------------------------------------------------------------------------- problems


def problem(source: Source, ops: Sequence[str] = (), budget: int = BUDGET) -> Problem:
    """A problem of one of ``ops`` (names without the rank: conv, gemm, max_pool, batch_norm, ...), or of any."""
    op = source.pick(ops or (*FAMILIES, "conv", "conv", "conv", "gemm"))
    return on_device(FAMILIES[op](source, op, budget))


def _dtype(source: Source) -> str:
    return source.pick(("f32", "f32", "f64"))


def extent(source: Source, cap: int) -> int:
    """A size up to ``cap``, at the edge of a tile more often than not."""
    cap = max(1, cap)
    allowed = [e for e in EDGES if e <= cap]
    return source.pick(allowed) if source.integer(0, 3) else source.integer(1, min(cap, EDGES[-1]))


def layout(source: Source, c: int, size: Sizes, read: bool, blocked: bool = False) -> Layout:
    """Dense, a channel slice of something larger, or (only where it is read) the same memory again and again."""
    name = source.pick(("nchw8c", "nchw16c") if blocked else ("nchw", "nhwc"))
    kind = source.pick(("dense", "dense", "slice", "expanded" if read else "slice"))
    if kind == "dense":
        return Layout(name)
    plane = _product(size)
    if blocked:
        block = Layout(name).block
        return Layout(name, (0 if kind == "expanded" else (-(-c // block) + source.integer(0, 2)) * block * plane,))
    if name == "nchw":
        return Layout(name, (0 if kind == "expanded" else (c + source.integer(0, 3)) * plane + source.integer(0, 3),))
    if kind == "expanded":
        return Layout(name, (max(c, 1), 0) if source.integer(0, 1) else (0, max(c, 1)))
    pixel = max(c, 1) + source.integer(0, 5)
    return Layout(name, (pixel * plane + source.integer(0, 3), pixel))


def _axes(rank: int, draw: Callable[[], int]) -> Sizes:
    return tuple(draw() for _ in range(rank))


def _extents(source: Source, rank: int, cap: int) -> Sizes:
    """One axis may be long, the others share what is left."""
    sizes = []
    for _ in range(rank):
        sizes.append(extent(source, min(cap, 70 if not sizes else 12)))
        cap //= sizes[-1]
    if source.integer(0, 1):
        sizes.reverse()
    return tuple(sizes)


def conv(source: Source, op: str, budget: int) -> ConvProblem:
    rank = source.pick((1, 2, 2, 2, 3))
    longest = {1: 9, 2: 5, 3: 3}[rank]
    filter = _axes(rank, lambda: source.pick([f for f in (1, 1, 2, 3, 3, 3, 4, 5, 7, 9) if f <= longest]))
    stride = _axes(rank, lambda: source.pick((1, 1, 1, 2, 2, 3, 4)))
    dilation = _axes(rank, lambda: source.pick((1, 1, 1, 1, 2, 3)))
    padding = tuple(
        source.pick((0, 0, f // 2, source.integer(0, d * (f - 1) + 1))) for f, d in zip(filter, dilation, strict=True)
    )
    budget = max(1, budget // _product(filter))
    c, k, groups = _channels(source, budget)
    budget = max(1, budget // max(1, c * k // groups))
    n = source.pick((1, 1, 2, 3)) if source.integer(0, 24) else 0
    out = _extents(source, rank, budget // max(n, 1))
    size = tuple(
        max(1, (o - 1) * u + d * (f - 1) + 1 - 2 * p + source.integer(*source.pick(((0, 0), (0, u - 1), (-2, u + 1)))))
        for o, f, u, p, d in zip(out, filter, stride, padding, dilation, strict=True)
    )
    pass_ = source.pick(("forward", "grad_input", "grad_weight"))
    steps: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    residual = None
    blocked = source.integer(0, 5) == 0
    if pass_ != "grad_weight":
        steps = tuple(step for step in ("bias", "residual", "relu") if source.integer(0, 2) == 0)
        if "residual" in steps:
            shape = (k, out) if pass_ == "forward" else (c, size)
            residual = layout(source, *shape, read=True, blocked=blocked and bool(source.integer(0, 2)))
    if pass_ == "forward" and source.integer(0, 5) == 0:
        before = tuple(step for step in PROLOGUES if source.integer(0, 2) > 0)
    return ConvProblem(
        f"conv{rank}d", pass_, n, c, size, k, filter, out, stride, padding, dilation, groups, _dtype(source),
        input=layout(source, c, size, pass_ != "grad_input", blocked and bool(source.integer(0, 2))),
        weight=layout(source, c // groups, filter, pass_ != "grad_weight") if source.integer(0, 2) == 0 else Layout(),
        output=layout(source, k, out, pass_ != "forward", blocked and bool(source.integer(0, 2))),
        residual=residual, epilogue=steps, prologue=before,
    )  # fmt: skip


def _channels(source: Source, budget: int) -> tuple[int, int, int]:
    """Input channels, output channels, groups."""
    shape = source.pick(("dense", "dense", "dense", "grouped", "depthwise", "empty"))
    if shape == "depthwise":
        groups = extent(source, min(source.pick((4, 17, 70)), budget // 8))
        return groups, groups * source.pick((1, 1, 2)), groups
    groups = source.pick((2, 2, 3, 5)) if shape == "grouped" else 1
    inside = extent(source, min(source.pick((4, 17, 70)), budget // 8))
    outside = extent(source, min(source.pick((4, 17, 70)), budget // 8 // inside))
    if shape == "empty" and source.integer(0, 3) == 0:
        return (0, outside, 1) if source.integer(0, 1) else (inside, 0, 1)
    return groups * inside, groups * outside, groups


def gemm(source: Source, op: str, budget: int) -> GemmProblem:
    batch = source.pick((1, 1, 1, 2, 3))
    k = extent(source, budget) if source.integer(0, 9) else 0
    n = extent(source, budget // max(k, 1))
    m = extent(source, budget // max(n * k, 1)) if source.integer(0, 19) else 0
    ones = source.pick(("", "", "", "", "m", "n", "k", "mn", "mk", "nk"))
    m, n, k = (min(size, 1) if name in ones else size for name, size in (("m", m), ("n", n), ("k", k)))
    steps = tuple(step for step in ("bias", "residual", "relu") if source.integer(0, 2) == 0)
    return GemmProblem(
        m, n, k, batch, _dtype(source),
        a=matrix(source, m, k, True),
        b=matrix(source, k, n, True),
        out=matrix(source, m, n, False) if source.integer(0, 1) else Matrix(),
        residual=matrix(source, m, n, True) if "residual" in steps else None,
        epilogue=steps,
    )  # fmt: skip


def matrix(source: Source, rows: int, columns: int, read: bool) -> Matrix:
    kind = source.pick(("row", "row", "col", "any"))
    leading = (columns if kind != "col" else rows) + source.integer(0, 5)
    batch = leading * (rows if kind != "col" else columns) + source.integer(0, 3)
    if kind == "any":
        step = source.integer(2, 3)
        row, column, batch = leading * step, step, batch * step
        if read and source.integer(0, 1):
            return Matrix("any", source.pick(((0, 1, batch), (row, 0, batch), (0, 0, 0))))
        transposed = (step, rows * step, rows * columns * step)
        return Matrix("any", (row, column, batch) if source.integer(0, 1) else transposed)
    if source.integer(0, 1):
        return Matrix(kind)
    return Matrix(kind, (leading, 0 if read and source.integer(0, 2) == 0 else batch))


def pool(source: Source, op: str, budget: int) -> PoolProblem:
    rank = source.pick((1, 2, 2, 3))
    adaptive, largest = op.startswith("adaptive"), "max" in op
    n, c = source.pick((1, 1, 2, 2)) if source.integer(0, 24) else 0, extent(source, source.pick((4, 33)))
    cap = max(1, min(source.pick((50, 50, 400)), budget // 50 // (c * max(n, 1))))  # the reference loops over windows
    pass_ = source.pick(("forward", "grad_input"))
    window: dict[str, Sizes] = {}
    if adaptive:
        size = _extents(source, rank, cap)
        out = tuple(source.pick((1, source.integer(1, i), min(i + 2, 12))) for i in size)
    else:
        filter = _axes(rank, lambda: source.pick((1, 2, 2, 3, 3, 5) if rank < 3 else (1, 2, 3)))
        dilation = _axes(rank, lambda: source.pick((1, 1, 2, 3)) if largest else 1)
        stride = _axes(rank, lambda: source.pick((1, 2, 2, 3)))
        padding = tuple(source.integer(0, f // 2) for f in filter)
        natural = _extents(source, rank, cap)
        out_and_size = [
            _pooled_axis(source, *axis) for axis in zip(natural, filter, stride, padding, dilation, strict=True)
        ]
        out, size = tuple(o for o, _ in out_and_size), tuple(i for _, i in out_and_size)
        window = {"filter": filter, "stride": stride, "padding": padding, "dilation": dilation}
    forward = pass_ == "forward"
    drawn = PoolProblem(
        f"{op}{rank}d", pass_, n, c, size, out, dtype=_dtype(source), **window,
        indices="" if not largest else source.pick(("int64", "offset") if not forward else ("", "int64", "offset")),
        count_include_pad=op != "avg_pool" or bool(source.integer(0, 2)),
        divisor=source.integer(1, 7) if op == "avg_pool" and source.integer(0, 3) == 0 else 0,
    )  # fmt: skip
    if not valid(drawn):
        drawn = replace(drawn, padding=(0,) * rank, size=_unpadded(drawn))
    blocked = source.integer(0, 5) == 0
    input = layout(source, c, drawn.size, forward, blocked)
    output = layout(source, c, drawn.output_size, not forward, blocked)
    if drawn.indices and output.name == "nhwc" and output.outer[-1:] == (0,):
        output = Layout("nhwc")  # windows with the same index: it would lie outside of some
    if drawn.indices == "offset" and not has_offsets(drawn.size, drawn.filter, drawn.padding, drawn.dilation):
        drawn = replace(drawn, indices="int64")
    return replace(
        drawn,
        input=input,
        output=output,
    )


def _pooled_axis(source: Source, out: int, filter: int, stride: int, padding: int, dilation: int) -> tuple[int, int]:
    """Output and input size; a remainder of the input is cut off, or (ceil_mode) makes one more window."""
    size = max(1, (out - 1) * stride + dilation * (filter - 1) + 1 - 2 * padding + source.integer(0, stride - 1))
    more = (size + 2 * padding - dilation * (filter - 1) - 1) % stride > 0 and out * stride < size + padding
    return (out + 1 if more and source.integer(0, 1) else out), size


def _unpadded(p: PoolProblem) -> Sizes:
    return tuple(
        (o - 1) * u + d * (f - 1) + 1 for o, f, u, d in zip(p.output_size, p.filter, p.stride, p.dilation, strict=True)
    )


def norm(source: Source, op: str, budget: int) -> NormProblem:
    n, c = source.pick((1, 2, 3)), extent(source, source.pick((4, 70)))
    size = _extents(source, source.pick((0, 1, 2, 2, 3)), max(1, budget // 10 // (n * c)))
    if source.integer(0, 19) == 0:
        n = 0
    training = op == "batch_norm" and n * _product(size) > 1 and bool(source.integer(0, 2))
    pass_ = "forward" if op == "channel_sum" else source.pick(("forward", "grad_input"))
    drawn = NormProblem(
        op, pass_, n, c, size, _dtype(source),
        input=layout(source, c, size, op == "channel_sum" or pass_ == "forward"),
        output=Layout() if op == "channel_sum" else layout(source, c, size, pass_ == "grad_input"),
        training=training,
        window=source.integer(1, 7) if op == "local_response_norm" else 0,
    )  # fmt: skip
    if op != "batch_norm":
        return drawn
    epilogue = tuple(step for step in ("residual", "relu") if source.integer(0, 2) == 0)
    residual = layout(source, c, size, pass_ == "forward") if "residual" in epilogue else None
    drawn = replace(drawn, epilogue=epilogue, residual=residual)
    if source.integer(0, 1):  # all alike: the fast paths
        name = Layout(source.pick(("nchw", "nhwc", "nchw8c", "nchw16c")))
        drawn = replace(drawn, input=name, output=name, residual=residual and name)
    return drawn


def pointwise(source: Source, op: str, budget: int) -> PointwiseProblem:
    count = source.integer(0, 300) if budget <= BUDGET else source.integer(60_000, 150_000)
    pass_, dtype = source.pick(("forward", "grad_input")), _dtype(source)
    return PointwiseProblem(op, pass_, count, dtype, mask=source.integer(0, 2) == 0)


FAMILIES: dict[str, Callable[[Source, str, int], Any]] = {
    "conv": conv, "gemm": gemm,
    "max_pool": pool, "avg_pool": pool, "adaptive_max_pool": pool, "adaptive_avg_pool": pool,
    "batch_norm": norm, "local_response_norm": norm, "channel_sum": norm, "relu": pointwise,
}  # fmt: skip


def is_public(p: Problem) -> bool:
    """Whether torch's tensors and functions can ask for it: no blocked layout, prologue or mask."""
    layouts = (getattr(p, name, None) for name in ("input", "output", "residual"))
    blocked = any(isinstance(layout, Layout) and layout.block > 1 for layout in layouts)
    return not blocked and not getattr(p, "prologue", ()) and not getattr(p, "mask", False)


def valid(p: Problem) -> bool:
    """Whether an op could ask for this problem: what the drawing and shrinking of pooling have to respect."""
    if isinstance(p, PoolProblem):
        inside = all(len(axis) > 0 for _, window in reference.pool.windows(p) for axis in window)
        half = all(2 * pad <= f for pad, f in zip(p.padding, p.filter, strict=True))
        starts = all(
            (o - 1) * u < i + pad for o, u, i, pad in zip(p.output_size, p.stride, p.size, p.padding, strict=False)
        )
        return inside and half and starts
    if isinstance(p, NormProblem):
        return not p.training or p.n * _product(p.size) > 1
    return True


def _product(values: Sizes) -> int:
    return math.prod(values)


# ---------------------------------------------------------------------------------------------- data


def data(p: Problem, kind: str, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Arrays and scalars for the reference and :func:`raw.run`, exactly representable in the problem's dtype.

    ``integers``: sparse and small, so that no sum rounds. ``normal``: N(0, 1), a third of the channels far from 0.
    ``nonfinite``: integers with NaN and infinities, but only in tensors that never meet the zeros of a padding (there
    torch itself makes NaN or not, as its algorithm has it).
    """
    arrays = {o.name: _values(o, p, kind, rng) for o in raw.operands(p) if o.read}
    scalars = _scalars(p, kind, rng)
    if isinstance(p, PoolProblem) and "indices" in arrays:
        forward = replace(p, pass_="forward")
        shape = (p.n, p.c, *p.size)
        arrays["indices"] = reference.run(forward, {"input": rng.integers(-2, 3, shape).astype(float)})["indices"]
        _repeat(arrays["indices"], _strides_of(p, "indices"))
    if "mask" in arrays:
        forward = replace(p, pass_="forward")
        arrays["mask"] = reference.run(forward, {"input": rng.integers(-2, 3, p.count).astype(float)})["mask"]
    if isinstance(p, GemmProblem) and "residual" in arrays and scalars["beta"] == 0:
        arrays["residual"][...] = np.nan  # must not be read
    if isinstance(p, NormProblem) and p.op == "batch_norm":
        _batch_norm_statistics(p, arrays, scalars, rng)
    return arrays, scalars


def _values(o: raw.Operand, p: Problem, kind: str, rng: np.random.Generator) -> np.ndarray:
    repeated = any(stride == 0 and size > 1 for stride, size in zip(o.strides, o.shape, strict=True))
    if kind == "normal" and not repeated:  # a sum of equal terms would round the same way every time
        values = rng.standard_normal(o.shape)
        if isinstance(p, NormProblem) and len(o.shape) > 1:
            values[:, ::3] += 10
    else:
        values = rng.integers(-3, 4, o.shape) * (rng.random(o.shape) < 0.6).astype(float)
        if kind == "nonfinite" and _may_be_nonfinite(o.name, p):
            spots = rng.random(o.shape) < rng.choice((0.02, 0.5))
            values[spots] = rng.choice((np.nan, np.inf, -np.inf, -np.inf), int(spots.sum()))
    return _repeat(rounded(values, p.dtype).astype(np.float64), o.strides)


def _repeat(values: np.ndarray, strides: Sizes) -> np.ndarray:
    """Makes the values along an axis of stride 0 equal, as the memory will have them."""
    for axis, stride in enumerate(strides):
        if stride == 0 and values.shape[axis] > 1:
            values[...] = values.take([0], axis)
    return values


def _strides_of(p: Problem, name: str) -> Sizes:
    return next(o.strides for o in raw.operands(p) if o.name == name)


def _may_be_nonfinite(name: str, p: Problem) -> bool:
    if isinstance(p, ConvProblem):
        return name == ("output" if p.pass_ == "grad_input" else "input")
    if isinstance(p, NormProblem):
        return name in ("input", "grad_output") and p.op == "channel_sum"
    return name not in ("bias", "residual")


def _scalars(p: Problem, kind: str, rng: np.random.Generator) -> dict[str, float]:
    if isinstance(p, GemmProblem):
        return {"alpha": float(rng.choice((1, 1, 2, -1))), "beta": float(rng.choice((1, 1, 0, -2)))}
    if isinstance(p, NormProblem) and p.op == "batch_norm":
        return {"eps": float(rng.choice((1e-5, 1e-3))), "momentum": float(rng.choice((0.1, 0.0, 1.0)))}
    if isinstance(p, NormProblem) and p.op == "local_response_norm":
        # Bases below 0, and of 0 where all of a window is (k = 0); never of 0 beside others, which is torch's NaN.
        return {
            "alpha": float(rng.choice((1e-4, 0.5, -4.7))),
            "beta": float(rng.choice((0.75, 0.75, 0.5, 1.0, 2.0, -1.0, 0.0))),
            "k": float(rng.choice((1.0, 2.0, 0.0))),
        }
    return {}


def _batch_norm_statistics(p: NormProblem, arrays: dict, scalars: dict, rng: np.random.Generator) -> None:
    """Variances are positive; mean and invstd of the backward are the forward's. Options are left out at random."""
    if "running_var" in arrays:
        arrays["running_var"] = rounded(np.abs(arrays["running_var"]) + 0.5, p.dtype).astype(np.float64)
    if "mean" in arrays:
        forward = replace(p, pass_="forward", epilogue=())
        statistics = reference.run(forward, {"input": arrays["input"]}, **scalars)
        for name in ("mean", "invstd"):
            arrays[name] = rounded(statistics[name], COMPUTED_IN.get(p.dtype, p.dtype)).astype(np.float64)
    optional = ("weight", "bias", "running_mean", "running_var") if p.training else ("weight", "bias")
    for name in optional:
        if name in arrays and rng.random() < 0.2:
            del arrays[name]


def is_exact(p: Problem, kind: str) -> bool:
    """Whether the result of this kind of data is independent of the order of summation."""
    if kind == "normal":
        return isinstance(p, PointwiseProblem)
    return isinstance(p, ConvProblem | GemmProblem | PointwiseProblem) or p.op == "channel_sum" or "max_pool" in p.op
