"""A problem as a call that can be timed: on random memory, with a kernel's plan or with torch.

What a call allocates in its op it allocates here: the result each time. Its workspace, and the weight that it prepares
where nobody keeps one, is memory at hand, as the ops have it. Validation, dispatch and autograd, which cost every
kernel the same, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..kernels import Kernel
from ..kernels import torch as vendor
from ..problem import ConvProblem, GemmProblem, Layout, Matrix, NormProblem, PointwiseProblem, PoolProblem, Problem

_DTYPES = {"f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16}
_ALIGNMENT = 256  # of scratch, as the ops have it (ops/_workspace.py)
_STATISTICS = ("mean", "invstd")  # of a batch: in f32 at least
_SCALARS = {
    "batch_norm": {"eps": 1e-5, "momentum": 0.1},
    "local_response_norm": {"alpha": 1e-4, "beta": 0.75, "k": 1.0},
}
Call = Callable[[], object]


class Operands:
    """The tensors of a problem on its device, N(0, 1): flat memory by name, and what torch sees of it."""

    def __init__(self, problem: Problem):
        self.problem: Any = problem
        self.dtype, self.device = _DTYPES[problem.dtype], problem.device
        drawn_in = torch.float64 if problem.dtype == "f64" else torch.float32  # also what statistics are kept in
        generator = torch.Generator().manual_seed(0)
        lines = torch.randn(2**16, generator=generator, dtype=drawn_in, device="cpu").to(self.device)
        self.places = _places(problem)
        self.memory = {}
        for name, (_, _, extent) in self.places.items():
            self.memory[name] = _repeated(lines.to(drawn_in if name in _STATISTICS else self.dtype), extent)
        if isinstance(problem, PoolProblem) and problem.indices:
            self.memory["indices"] = _first_of_windows(problem, self.places["indices"][2])
        for name in ("running_var", "invstd"):
            if name in self.memory:
                self.memory[name].abs_().add_(0.5)

    def results(self, elements: int) -> Callable[[], Tensor]:
        """What allocates a result, as an op does."""
        return partial(torch.empty, elements, dtype=self.dtype, device=torch.device(self.device))

    def scratch(self, size: int) -> tuple[Tensor, int]:
        """So many aligned bytes, and their address."""
        memory = torch.empty(size + _ALIGNMENT, dtype=torch.uint8, device=self.device)
        return memory, memory.data_ptr() + -memory.data_ptr() % _ALIGNMENT

    def address(self, name: str) -> int:
        return self.memory[name].data_ptr() if name in self.memory else 0

    def view(self, name: str) -> Tensor:
        shape, strides, _ = self.places[name]
        assert strides is not None
        return self.memory[name].as_strided(shape, strides)

    def views(self) -> dict[str, Tensor]:
        return {name: self.view(name) for name, (_, strides, _) in self.places.items() if strides is not None}


def _repeated(lines: Tensor, count: int) -> Tensor:
    """A few random values again and again: as fast to make as memory is to write."""
    return lines.repeat(-(-count // len(lines)))[:count].clone() if count else lines[:0]


def _first_of_windows(p: PoolProblem, extent: int) -> Tensor:
    """Indices or offsets that name the first element of every window inside the input. Others may lie outside of it."""
    offsets = p.indices == "offset"
    names = torch.zeros((), dtype=torch.int64, device="cpu")
    for axis, (size, out) in enumerate(zip(p.size, p.output_size, strict=True)):
        window = torch.arange(out, device="cpu")
        if p.filter:
            begin = window * p.stride[axis] - p.padding[axis]
            before = (-begin).clamp(min=0) + p.dilation[axis] - 1
            number = before.div(p.dilation[axis], rounding_mode="floor")
            along = number if offsets else begin + number * p.dilation[axis]
        else:
            along = window * size // max(out, 1)
        names = names.unsqueeze(-1) * (p.filter[axis] if offsets else size) + along
    memory = torch.zeros(extent, dtype=torch.uint8 if offsets else torch.int64, device="cpu")
    strides, block = p.output.strides(p.c, p.output_size), p.output.block
    shape = (p.n, -(-p.c // block), *p.output_size, block)
    if extent:
        memory.as_strided(shape, (*strides, 1))[...] = names.unsqueeze(-1)
    return memory.to(p.device)


def _places(p: Problem) -> dict[str, tuple[tuple[int, ...], tuple[int, ...] | None, int]]:
    """Shape, strides (None where torch has none) and elements of memory of each tensor."""
    if isinstance(p, PointwiseProblem):
        return {name: _vector(p.count) for name in ("input", "grad_output", "result")}
    if isinstance(p, GemmProblem):
        matrices = {"a": (p.a, p.m, p.k), "b": (p.b, p.k, p.n), "result": (p.out, p.m, p.n)}
        if p.residual is not None:
            matrices["residual"] = (p.residual, p.m, p.n)
        places = {name: _matrix(p.batch, *matrix) for name, matrix in matrices.items()}
        return places | ({"bias": _vector(p.n)} if "bias" in p.epilogue else {})
    if isinstance(p, PoolProblem):
        places = {"input": _image(p.input, p.n, p.c, p.size), "output": _image(p.output, p.n, p.c, p.output_size)}
        return places | ({"indices": places["output"]} if p.indices else {})
    if isinstance(p, NormProblem):
        image, out = _image(p.input, p.n, p.c, p.size), _image(p.output, p.n, p.c, p.size)
        vectors = ("weight", "bias", "running_mean", "running_var", "mean", "invstd", "grad_weight", "grad_bias")
        places = {"input": image, "grad_output": out, "output": out} | {name: _vector(p.c) for name in vectors}
        if "relu" in p.epilogue:
            places["forward_output"] = out
        if p.residual is not None:
            name = "residual" if p.pass_ == "forward" else "grad_residual"
            places[name] = _image(p.residual, p.n, p.c, p.size)
        return places
    places = {
        "input": _image(p.input, p.n, p.c, p.size),
        "weight": _image(p.weight, p.k, p.c // p.groups, p.filter),
        "output": _image(p.output, p.n, p.k, p.output_size),
    }
    computed = p.k if p.pass_ == "forward" else p.c
    if p.residual is not None:
        places["residual"] = _image(p.residual, p.n, computed, p.computed_size)
    if "bias" in p.epilogue:
        places["bias"] = _vector(computed)
    if "scale" in p.prologue:
        places |= {"input_scale": _vector(p.c), "input_shift": _vector(p.c)}
    return places


def _vector(count: int):
    return (count,), (1,), count


def _matrix(batch: int, layout: Matrix, rows: int, columns: int):
    shape, strides = (batch, rows, columns), layout.strides(rows, columns)
    return shape, strides, _extent(shape, strides)


def _image(layout: Layout, n: int, c: int, size: tuple[int, ...]):
    shape, strides = (n, c, *size), layout.strides(c, size)
    if layout.block == 1:
        return shape, strides, _extent(shape, strides)
    blocks = (n, -(-c // layout.block), *size)
    return shape, None, _extent(blocks, strides) + (layout.block - 1 if math.prod(blocks) else 0)


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    return 0 if 0 in shape else 1 + sum((e - 1) * s for e, s in zip(shape, strides, strict=True))


# -------------------------------------------------------------------------------------------------------- calls


def call_of(kernel: Kernel, plan: Any, operands: Operands, kept: bool) -> Call | None:
    """The call of a kernel (``plan`` None: torch); None where torch has no such op."""
    if plan is None:
        return vendor.call(operands.problem, operands.views())
    return _RUNS[type(operands.problem)](plan, operands, kept)


def preparing(plan: Any, operands: Operands) -> Call | None:
    """The call that prepares the weight of a convolution; None where that is no step."""
    if not getattr(plan, "prepared_weight_bytes", 0) or not isinstance(operands.problem, ConvProblem):
        return None
    held, address = operands.scratch(plan.prepared_weight_bytes)

    def prepare() -> Tensor:
        plan.prepare_weight(operands.address("weight"), address)
        return held

    return prepare


def _conv(plan: Any, o: Operands, kept: bool) -> Call:
    p = o.problem
    computed = {"forward": "output", "grad_input": "input", "grad_weight": "weight"}[p.pass_]
    fresh = o.results(len(o.memory[computed]))
    names = ["input", "weight", "output", "bias", "residual"]
    addresses = [o.address(name) for name in names]
    prologue = [o.address(name) for name in ("input_scale", "input_shift")] if p.prologue else []
    result_at, weight_at = names.index(computed), names.index("weight")
    held, scratch = o.scratch(plan.workspace_bytes)
    prepare: Any = getattr(plan, "prepare_weight", None)  # not all plans have it where no weight is prepared
    launch = plan.run if prologue else plan.launch
    weight, prepared = addresses[weight_at], None
    preparable = plan.prepared_weight_bytes if p.pass_ != "grad_weight" else 0
    if not kept and not prologue and getattr(plan, "takes_plain_weight", False):
        preparable, launch = 0, plan.launch_plain
    if preparable:
        prepared, addresses[weight_at] = o.scratch(preparable)
        prepare(weight, addresses[weight_at])

    def run() -> object:
        result = fresh()
        addresses[result_at] = result.data_ptr()
        if preparable and not kept:
            prepare(weight, addresses[weight_at])
        launch(*addresses, scratch, *prologue)
        return result, prepared, held

    return run


def _gemm(plan: Any, o: Operands, kept: bool) -> Call:
    fresh = o.results(len(o.memory["result"]))
    a, b, bias, residual = (o.address(name) for name in ("a", "b", "bias", "residual"))
    prepared = None
    if kept and plan.prepared_weight_bytes:
        prepared, address = o.scratch(plan.prepared_weight_bytes)
        plan.prepare_weight(b, address)
        b = address
    held, scratch = o.scratch(plan.workspace_bytes)
    launch, is_prepared = plan.launch, prepared is not None

    def run() -> object:
        result = fresh()
        launch(a, b, result.data_ptr(), bias, residual, scratch, is_prepared)
        return result, prepared, held

    return run


def _pool(plan: Any, o: Operands, kept: bool) -> Call:
    forward = o.problem.pass_ == "forward"
    fresh = o.results(len(o.memory["output" if forward else "input"]))
    input, output, indices = (o.address(name) for name in ("input", "output", "indices"))
    launch = plan.launch

    def run() -> Tensor:
        result = fresh()
        made = result.data_ptr()
        launch(input if forward else made, made if forward else output, indices)
        return result

    return run


def _norm(plan: Any, o: Operands, kept: bool) -> Call:
    p = o.problem
    fresh = o.results(p.c if p.op == "channel_sum" else len(o.memory["output"]))
    names = {"input"}
    if p.op == "batch_norm":
        names |= {"weight", "bias"} | ({"mean", "invstd"} if p.training else {"running_mean", "running_var"})
        names |= {"running_mean", "running_var"} if p.pass_ == "forward" else {"grad_weight", "grad_bias"}
    if p.pass_ != "forward":
        names |= {"grad_output", "forward_output", "grad_residual"} & set(o.memory)
    names |= {"residual"} & set(o.memory)
    addresses = {name: o.address(name) for name in names}
    held, workspace = o.scratch(plan.workspace_bytes)
    scalars = _SCALARS.get(p.op, {})

    def run() -> object:
        result = fresh()
        plan.run(**addresses, **scalars, output=result.data_ptr(), workspace=workspace)
        return result, held

    return run


def _pointwise(plan: Any, o: Operands, kept: bool) -> Call:
    fresh = o.results(o.problem.count)
    input, grad_output = o.address("input"), o.address("grad_output") if o.problem.pass_ != "forward" else 0
    launch = plan.launch

    def run() -> Tensor:
        result = fresh()
        launch(input, grad_output, result.data_ptr())
        return result

    return run


_RUNS: dict[type, Callable[[Any, Operands, bool], Call]] = {
    ConvProblem: _conv, GemmProblem: _gemm, PoolProblem: _pool, NormProblem: _norm, PointwiseProblem: _pointwise,
}  # fmt: skip
