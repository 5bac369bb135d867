"""Runs a kernel's plan on raw memory, as its op would, with everything around the tensors under guard.

Each tensor lies at its own strides in a larger block, off alignment. What the plan writes starts as NaN (an element
that it misses shows); so do the gaps, the margins, the workspace and the prepared weight (reading them shows in the
result, writing them in the check after the run). Under test on a GPU, blocks go there and come back whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pycv.kernels import Kernel
from pycv.ops._workspace import ALIGNMENT
from pycv.problem import ConvProblem, GemmProblem, Layout, NormProblem, PointwiseProblem, PoolProblem, Problem

from .backend import Block
from .dtypes import COMPUTED_IN, MEMORY, decoded, encoded

Shape = tuple[int, ...]
_MARGIN = 256  # bytes of guard before and after a tensor
_GUARD = 0xFF  # every byte: NaN as a float, -1 as an index


@dataclass(frozen=True)
class Operand:
    """One tensor of a plan: where it lies, and whether the plan reads or writes it (or both)."""

    name: str
    shape: Shape
    strides: Shape  # in elements
    dtype: str
    read: bool = True
    written: bool = False
    block: int = 1  # of a blocked layout: strides[1] leads from one block of channels to the next


def operands(problem: Problem, arrays: dict[str, np.ndarray] | None = None) -> list[Operand]:
    """The tensors that a plan of this problem takes. Optional ones only where ``arrays`` (if given) has them."""
    if isinstance(problem, ConvProblem):
        return list(_conv_operands(problem))
    if isinstance(problem, GemmProblem):
        return list(_gemm_operands(problem))
    if isinstance(problem, PoolProblem):
        return list(_pool_operands(problem))
    if isinstance(problem, NormProblem):
        return [o for o in _norm_operands(problem) if arrays is None or not o.read or o.name in arrays]
    return list(_pointwise_operands(problem))


def _dense(name: str, count: int, dtype: str, read: bool = True, written: bool = False) -> Operand:
    return Operand(name, (count,), (1,), dtype, read, written)


def _conv_operands(p: ConvProblem) -> Iterator[Operand]:
    written = {"forward": "output", "grad_input": "input", "grad_weight": "weight"}[p.pass_]
    group = p.c // p.groups
    for name, layout, n, c, size in (
        ("input", p.input, p.n, p.c, p.size),
        ("weight", p.weight, p.k, group, p.filter),
        ("output", p.output, p.n, p.k, p.output_size),
    ):
        yield _image(name, (n, c, *size), layout, p.dtype, name != written, name == written)
    if "scale" in p.prologue:
        yield _dense("input_scale", p.c, p.dtype)
        yield _dense("input_shift", p.c, p.dtype)
    channels = p.k if p.pass_ == "forward" else p.c
    if "bias" in p.epilogue:
        yield _dense("bias", channels, p.dtype)
    if "residual" in p.epilogue:
        assert p.residual is not None
        yield _image("residual", (p.n, channels, *p.computed_size), p.residual, p.dtype)


def _image(name: str, shape: Shape, layout: Layout, dtype: str, read: bool = True, written: bool = False) -> Operand:
    return Operand(name, shape, layout.strides(shape[1], shape[2:]), dtype, read, written, layout.block)


def _gemm_operands(p: GemmProblem) -> Iterator[Operand]:
    yield Operand("a", (p.batch, p.m, p.k), p.a.strides(p.m, p.k), p.dtype)
    yield Operand("b", (p.batch, p.k, p.n), p.b.strides(p.k, p.n), p.dtype)
    yield Operand("out", (p.batch, p.m, p.n), p.out.strides(p.m, p.n), p.dtype, read=False, written=True)
    if "bias" in p.epilogue:
        yield _dense("bias", p.n, p.dtype)
    if "residual" in p.epilogue:
        assert p.residual is not None
        yield Operand("residual", (p.batch, p.m, p.n), p.residual.strides(p.m, p.n), p.dtype)


def _pool_operands(p: PoolProblem) -> Iterator[Operand]:
    forward = p.pass_ == "forward"
    out = (p.n, p.c, *p.output_size)
    yield _image("input", (p.n, p.c, *p.size), p.input, p.dtype, forward, not forward)
    yield _image("output", out, p.output, p.dtype, not forward, forward)
    if p.indices:
        yield _image("indices", out, p.output, p.index_dtype, not forward, forward)


def _norm_operands(p: NormProblem) -> Iterator[Operand]:
    forward, batch_norm = p.pass_ == "forward", p.op == "batch_norm"
    shape = (p.n, p.c, *p.size)
    yield _image("input", shape, p.input, p.dtype)
    if p.op == "channel_sum":
        yield _dense("output", p.c, p.dtype, read=False, written=True)
        return
    if forward:
        yield _image("output", shape, p.output, p.dtype, read=False, written=True)
    else:
        yield _image("grad_output", shape, p.output, p.dtype)
        yield _image("output", shape, p.input, p.dtype, read=False, written=True)
    if "relu" in p.epilogue and not forward:
        yield _image("forward_output", shape, p.output, p.dtype)
    if "residual" in p.epilogue:
        assert p.residual is not None
        name = "residual" if forward else "grad_residual"
        yield _image(name, shape, p.residual, p.dtype, read=forward, written=not forward)
    if batch_norm:
        yield from _batch_norm_vectors(p, forward)


def _batch_norm_vectors(p: NormProblem, forward: bool) -> Iterator[Operand]:
    yield _dense("weight", p.c, p.dtype)
    if forward:
        yield _dense("bias", p.c, p.dtype)
    if forward or not p.training:
        for name in ("running_mean", "running_var"):
            yield _dense(name, p.c, p.dtype, written=p.training)
    if p.training:
        for name in ("mean", "invstd"):
            yield _dense(name, p.c, COMPUTED_IN.get(p.dtype, p.dtype), read=not forward, written=forward)
    if not forward:
        for name in ("grad_weight", "grad_bias"):
            yield _dense(name, p.c, p.dtype, read=False, written=True)


def _pointwise_operands(p: PointwiseProblem) -> Iterator[Operand]:
    forward = p.pass_ == "forward"
    if forward or not p.mask:
        yield _dense("input", p.count, p.dtype)
    if not forward:
        yield _dense("grad_output", p.count, p.dtype)
    yield _dense("output", p.count, p.dtype, read=False, written=True)
    if p.mask:
        yield _dense("mask", p.mask_bytes, "uint8", read=not forward, written=forward)


class _Tensor:
    """An operand in a guarded block of memory."""

    def __init__(self, operand: Operand, values: np.ndarray | None, offset: int):
        dtype = MEMORY[operand.dtype]
        shape, element_strides = operand.shape, operand.strides
        if operand.block > 1:
            shape = (shape[0], -(-shape[1] // operand.block), *shape[2:], operand.block)
            element_strides = (*element_strides, 1)
            values = None if values is None else _blocked(values, operand.block)
        extent = 0
        if 0 not in shape:
            extent = 1 + sum((e - 1) * s for e, s in zip(shape, element_strides, strict=True))
        start = _MARGIN + offset * dtype.itemsize
        self.memory = Block(start + extent * dtype.itemsize + _MARGIN, _GUARD)
        self.block = self.memory.bytes
        strides = tuple(s * dtype.itemsize for s in element_strides)
        self.view = np.ndarray(shape, dtype, self.block, start if extent else 0, strides)
        if values is not None:
            self.view[...] = encoded(values, operand.dtype)
        self.operand, self.start = operand, start
        self.before = self.block.copy()
        self.pointer = self.memory.there() + start

    def values(self) -> np.ndarray:
        """A copy as (n, c, ...) or whatever shape the operand has. The channels that fill a last block must be 0."""
        values = decoded(self.view, self.operand.dtype)
        if self.operand.block == 1:
            return values
        channels = self.operand.shape[1]
        whole = np.moveaxis(values, -1, 2)
        whole = whole.reshape(whole.shape[0], whole.shape[1] * whole.shape[2], *whole.shape[3:])
        assert not np.any(whole[:, channels:]), f"{self.operand.name}: the channels beyond {channels} are not 0"
        return whole[:, :channels].copy()

    def check(self) -> None:
        """Takes the memory back. Nothing but the elements of a written tensor may have changed."""
        self.memory.back()
        changed = self.block != self.before
        if self.operand.written:
            strides = (*self.view.strides, 1)
            inside = np.ndarray((*self.view.shape, self.view.itemsize), bool, changed, self.start, strides)
            inside[...] = False
        if changed.any():
            at = int(np.argmax(changed)) - self.start
            kind = "outside its elements" if self.operand.written else "though it is only read"
            raise AssertionError(f"{self.operand.name} was written {kind}, at byte {at}")


def _blocked(values: np.ndarray, block: int) -> np.ndarray:
    """(n, c, *spatial) as (n, blocks of channels, *spatial, block), filled up with zeros."""
    n, c, *spatial = values.shape
    blocks = -(-c // block)
    padded = np.zeros((n, blocks * block, *spatial), values.dtype)
    padded[:, :c] = values
    return np.moveaxis(padded.reshape(n, blocks, block, *spatial), 2, -1)


class _Scratch:
    """Aligned memory under guard: workspace or prepared weight."""

    def __init__(self, name: str, size: int):
        self.name, self.size = name, size
        self.memory = Block(size + ALIGNMENT + 2 * _MARGIN, _GUARD)
        address = self.memory.there()
        self.start = _MARGIN + -(address + _MARGIN) % ALIGNMENT
        self.pointer = address + self.start

    def check(self) -> None:
        self.memory.back()
        self.block = self.memory.bytes
        outside = (self.block[: self.start], self.block[self.start + self.size :])
        assert all((part == _GUARD).all() for part in outside), f"{self.name}: written outside its {self.size} bytes"


def _preparable(problem: Problem, prepare: bool) -> str | None:
    """The operand that the plan takes in prepared form: optional for a GEMM."""
    if isinstance(problem, GemmProblem):
        return "b" if prepare else None
    return "weight" if isinstance(problem, ConvProblem) and problem.pass_ != "grad_weight" else None


def run(
    problem: Problem,
    kernel: Kernel,
    arrays: dict[str, np.ndarray],
    scalars: dict[str, float],
    threads: int = 1,
    workspace_limit: int = 2**28,
    offset: int = 1,
    prepare: bool = True,
) -> dict[str, np.ndarray]:
    """Plans and runs the problem once; returns what was written, in the problem's dtype.

    ``arrays`` and ``scalars`` are named as for the reference. ``offset`` is how many elements each tensor starts after
    an aligned address. ``prepare``: hand over the prepared weight where the plan would take the plain one, too.
    Raises AssertionError where memory was written that is not the plan's to write.
    """
    assert kernel.plan is not None
    plan = kernel.plan(problem, threads, workspace_limit)
    tensors = {o.name: _Tensor(o, arrays[o.name] if o.read else None, offset) for o in operands(problem, arrays)}
    pointers = {name: tensor.pointer for name, tensor in tensors.items()}
    guarded: list[_Tensor | _Scratch] = list(tensors.values())
    if size := getattr(plan, "workspace_bytes", 0):
        guarded.append(_Scratch("workspace", size))
        pointers["workspace"] = guarded[-1].pointer
    weight = _preparable(problem, prepare)
    if not prepare and getattr(plan, "takes_plain_weight", False):
        scalars = scalars | {"plain_weight": True}
    elif weight and plan.prepared_weight_bytes:
        guarded.append(_Scratch("prepared weight", plan.prepared_weight_bytes))
        plan.prepare_weight(pointers[weight], guarded[-1].pointer)
        pointers[weight] = guarded[-1].pointer
        if weight == "b":
            scalars = scalars | {"b_prepared": True}
    if isinstance(problem, PointwiseProblem):
        pointers = {"input": 0, "grad_output": 0} | pointers
    plan.run(**pointers, **scalars)
    for memory in guarded:
        memory.check()
    return {name: tensor.values() for name, tensor in tensors.items() if tensor.operand.written}
