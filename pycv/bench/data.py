"""The tensors of a problem: random values, laid out as the problem says.

Inputs and gradients are N(0, 1), weights are He-scaled (N(0, 2 / fan-in)): what numeric classes are stated for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..problem import ConvProblem, GemmProblem, Layout, Matrix, NormProblem, PointwiseProblem, PoolProblem, Problem

Data = dict[str, Tensor]
Shape = tuple[tuple[int, ...], float]  # sizes, and the scale of the values
DTYPES = {
    "f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16,
}  # fmt: skip


def require_dtype(problem: Problem) -> None:
    """Raises ValueError for a dtype that random numbers are not drawn for."""
    if problem.dtype not in DTYPES:
        raise ValueError(f"problem '{problem}': benchmarks draw {', '.join(DTYPES)}, not {problem.dtype}")


def require_device(problem: Problem) -> None:
    """Raises ValueError for a problem of a GPU where torch sees none."""
    if problem.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"problem '{problem}': torch sees no GPU here")


def random_data(problem: Problem, seed: int) -> Data:
    """The tensors that a problem names, contiguous, on the problem's device. The same seed gives the same values."""
    require_dtype(problem)
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=random).mul_(scale)

    values = {name: normal(*shape, scale=scale) for name, (shape, scale) in _shapes(problem).items()}
    if "running_var" in values:
        values["running_var"] = values["running_var"].abs_().add_(0.5)
    return {name: value.to(problem.device, DTYPES[problem.dtype]) for name, value in values.items()}


def _shapes(p: Problem) -> dict[str, Shape]:
    """Shape and scale of each tensor."""
    if isinstance(p, PointwiseProblem):
        return {"input": ((p.count,), 1.0), "grad_output": ((p.count,), 1.0)}
    if isinstance(p, GemmProblem):
        shapes: dict[str, Shape] = {"a": ((p.batch, p.m, p.k), 1.0), "b": ((p.batch, p.k, p.n), _he(p.k))}
        if p.residual is not None or "residual" in p.epilogue:
            shapes["residual"] = ((p.batch, p.m, p.n), 1.0)
        return shapes | ({"bias": ((p.n,), 1.0)} if "bias" in p.epilogue else {})
    shapes = {"input": ((p.n, p.c, *p.size), 1.0)}
    if isinstance(p, NormProblem):
        names = ("weight", "bias", "running_mean", "running_var")
        return shapes | {"grad_output": shapes["input"]} | {name: ((p.c,), 1.0) for name in names}
    if isinstance(p, PoolProblem):
        return shapes | {"grad_output": ((p.n, p.c, *p.output_size), 1.0)}
    shapes["grad_output"] = ((p.n, p.k, *p.output_size), 1.0)
    shapes["weight"] = ((p.k, p.c // p.groups, *p.filter), _he(p.c // p.groups * math.prod(p.filter)))
    computed = p.k if p.pass_ == "forward" else p.c
    if "bias" in p.epilogue:
        shapes["bias"] = ((computed,), 1.0)
    if "residual" in p.epilogue:
        shapes["residual"] = ((p.n, computed, *p.computed_size), 1.0)
    return shapes


def _he(fan_in: int) -> float:
    return math.sqrt(2 / max(fan_in, 1))


def arranged(problem: Problem, data: Data) -> Data:
    """Copies of the tensors, laid out in memory as the problem says; nothing is shared with ``data``."""
    layouts: dict[str, Layout | Matrix | None]
    if isinstance(problem, GemmProblem):
        layouts = {"a": problem.a, "b": problem.b, "residual": problem.residual}
    elif isinstance(problem, PointwiseProblem):
        layouts = {}
    else:
        layouts = {"input": problem.input, "grad_output": problem.output}
        if isinstance(problem, ConvProblem):
            layouts |= {"weight": problem.weight, "residual": problem.residual}
    return {name: _laid_out(value, layouts.get(name)) for name, value in data.items()}


def _laid_out(value: Tensor, layout: Layout | Matrix | None) -> Tensor:
    if layout is None:
        return value.clone(memory_format=torch.contiguous_format)
    strides: tuple[int, ...]
    if isinstance(layout, Matrix):
        strides = layout.strides(value.shape[1], value.shape[2])
    else:
        strides = layout.strides(value.shape[1], tuple(value.shape[2:]))
    return torch.empty_strided(value.shape, strides, dtype=value.dtype, device=value.device).copy_(value)
