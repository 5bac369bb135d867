"""The fields of a problem in the order in which csrc/bindings/problems.h takes them."""

from __future__ import annotations

from typing import Any

from pycv.problem import ConvProblem, GemmProblem, Layout, NormProblem, PointwiseProblem, PoolProblem, Sizes

Fields = tuple[Any, ...]


def _spatial(values: Sizes, fill: int) -> list[int]:
    """One, two or three axes as (depth, height, width)."""
    return [fill] * (3 - len(values)) + list(values)


def _strides(layout: Layout, c: int, size: Sizes) -> list[int]:
    n, c, *spatial = layout.strides(c, size)
    return [n, c, *([0] * (3 - len(spatial))), *spatial, layout.block]


def conv(p: ConvProblem) -> Fields:
    computed_channels = p.k if p.pass_ == "forward" else p.c
    residual = p.residual or Layout()
    return (
        p.pass_, p.dtype, p.n, p.c, p.k, p.groups,
        _spatial(p.size, 1), _spatial(p.filter, 1), _spatial(p.output_size, 1),
        _spatial(p.stride, 1), _spatial(p.padding, 0), _spatial(p.dilation, 1),
        _strides(p.input, p.c, p.size),
        _strides(p.weight, p.c // p.groups, p.filter),
        _strides(p.output, p.k, p.output_size),
        _strides(residual, computed_channels, p.computed_size),
        "bias" in p.epilogue, "residual" in p.epilogue, "relu" in p.epilogue,
        "scale" in p.prologue, "relu" in p.prologue,
    )  # fmt: skip


def gemm(p: GemmProblem) -> Fields:
    residual = p.residual.strides(p.m, p.n) if p.residual is not None else (0, 0, 0)
    return (
        p.dtype, p.batch, p.m, p.n, p.k,
        p.a.strides(p.m, p.k), p.b.strides(p.k, p.n), p.out.strides(p.m, p.n), residual,
        "bias" in p.epilogue, "residual" in p.epilogue, "relu" in p.epilogue,
    )  # fmt: skip


def pool(p: PoolProblem) -> Fields:
    return (
        p.op[:-2], p.pass_, p.dtype, p.n, p.c,
        _spatial(p.size, 1), _spatial(p.filter, 1), _spatial(p.output_size, 1),
        _spatial(p.stride, 1), _spatial(p.padding, 0), _spatial(p.dilation, 1),
        _strides(p.input, p.c, p.size), _strides(p.output, p.c, p.output_size),
        p.indices, p.count_include_pad, p.divisor,
    )  # fmt: skip


def norm(p: NormProblem) -> Fields:
    return (
        p.op, p.pass_, p.dtype, p.n, p.c, _spatial(p.size, 1),
        _strides(p.input, p.c, p.size), _strides(p.output, p.c, p.size), p.training, p.window,
        _strides(p.residual or p.input, p.c, p.size), "residual" in p.epilogue, "relu" in p.epilogue,
    )  # fmt: skip


def pointwise(p: PointwiseProblem) -> Fields:
    return p.op, p.pass_, p.dtype, p.count, p.mask


def layouts(problem: Any) -> list[Layout]:
    """Those of a problem's tensors; a GEMM's matrices have none."""
    named = (getattr(problem, name, None) for name in ("input", "output", "weight", "residual"))
    return [layout for layout in named if isinstance(layout, Layout)]
