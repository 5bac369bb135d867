"""torch itself as a backend: the vendor library's kernels for a problem, called as a user of torch would call them.

``conv_pass`` is also what the op runs where torch is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format

from pycv.problem import (
    ConvProblem,
    GemmProblem,
    Layout,
    NormProblem,
    PointwiseProblem,
    PoolProblem,
    Problem,
    Sizes,
    output_size,
)

from . import Kernel, _limits

Tensors = dict[str, Tensor]


def _supports(problem: Problem) -> str | None:
    return _limits.mask(problem, "torch") if isinstance(problem, PointwiseProblem) else None


def entry(op: str, pass_: str) -> Kernel:
    """torch's registry entry for an op and pass. It has no plan: the op calls torch itself."""
    return Kernel(op, pass_, "torch", "torch", _supports, None)


def conv_pass(
    pass_: str, a: Tensor, b: Tensor, bias: Tensor | None, *, size: Sizes, filter: Sizes, stride: Sizes, padding: Sizes,
    right_padding: Sizes, dilation: Sizes, groups: int,
) -> Tensor:  # fmt: skip
    """One pass of a convolution; ``bias`` in forward only.

    a, b: input and weight (forward), grad_output and weight (grad_input), grad_output and input (grad_weight). aten
    knows only equal padding on both sides: the rest is padded or cut here.
    """
    extra = [max(r - p, 0) for r, p in zip(right_padding, padding, strict=True)]
    widths = [width for e in reversed(extra) for width in (0, e)]
    tail = (stride, padding, dilation)
    zeros = [0] * len(size)
    if pass_ == "forward":
        return torch.ops.aten.convolution(F.pad(a, widths) if any(extra) else a, b, bias, *tail, False, zeros, groups)
    backward = torch.ops.aten.convolution_backward
    if pass_ == "grad_input":
        padded = tuple(s + e for s, e in zip(size, extra, strict=True))
        like = a.new_empty(1).expand((a.shape[0], b.shape[1] * groups, *padded))
        if a.dim() > 3 and (wanted := suggest_memory_format(a)) is not torch.contiguous_format:
            b = b.contiguous(memory_format=wanted)  # aten goes by its input, of which only the shape is here, or by it
        full = backward(a, like, b, None, *tail, False, zeros, groups, [True, False, False])[0]
        if not any(extra):
            return full
        kept = full[(slice(None), slice(None), *(slice(s) for s in size))]
        return kept.contiguous(memory_format=suggest_memory_format(full))
    like = a.new_empty(1).expand((a.shape[1], b.shape[1] // groups, *filter))
    b = F.pad(b, widths) if any(extra) else b
    return backward(a, b, like, None, *tail, False, zeros, groups, [False, True, False])[1]


# ------------------------------------------------------------------------------------- a problem as a call of torch


def call(problem: Problem, tensors: Tensors) -> Callable[[], object] | None:
    """The call of torch that solves a problem, result allocated anew each time; None where torch has no such op.

    ``tensors`` are those that the pass reads, by the names of the problem (a gradient of the output is ``output``).
    """
    layouts = (getattr(problem, name, None) for name in ("input", "output", "weight", "residual"))
    if any(isinstance(layout, Layout) and layout.block > 1 for layout in layouts):
        return None
    return _CALLS[type(problem)](problem, tensors)


def _conv(p: ConvProblem, t: Tensors) -> Callable[[], object] | None:
    if p.prologue:
        return None
    first, second = {
        "forward": ("input", "weight"), "grad_input": ("output", "weight"), "grad_weight": ("output", "input"),
    }[p.pass_]  # fmt: skip
    right = tuple(
        (o - 1) * u + d * (f - 1) + 1 - i - q
        for i, o, u, q, d, f in zip(p.size, p.output_size, p.stride, p.padding, p.dilation, p.filter, strict=True)
    )
    bias = t.get("bias")
    run = partial(
        conv_pass, p.pass_, t[first], t[second], bias if p.pass_ == "forward" else None, size=p.size, filter=p.filter,
        stride=p.stride, padding=p.padding, right_padding=right, dilation=p.dilation, groups=p.groups,
    )  # fmt: skip
    if not p.epilogue:
        return run
    per_channel = None if bias is None or p.pass_ == "forward" else bias.view(-1, *[1] * len(p.size))
    return partial(_epilogue, run, per_channel, t.get("residual"), "relu" in p.epilogue)


def _gemm(p: GemmProblem, t: Tensors) -> Callable[[], object]:
    a, b, bias = t["a"], t["b"], t.get("bias")
    if p.batch > 1:
        run = partial(torch.matmul, a, b)
    elif bias is not None:
        run, bias = partial(torch.addmm, bias, a[0], b[0]), None
    else:
        run = partial(torch.mm, a[0], b[0])
    return partial(_epilogue, run, bias, t.get("residual"), "relu" in p.epilogue) if p.epilogue else run


def _epilogue(run: Callable, bias: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
    y = run()
    y = y if bias is None else y + bias
    y = y if residual is None else y + residual
    return torch.relu(y) if relu else y


def _pool(p: PoolProblem, t: Tensors) -> Callable[[], object] | None:
    """Forward only: torch's gradient belongs to torch's forward."""
    if p.pass_ != "forward":
        return None
    x, function = t["input"], getattr(F, p.op)
    if p.op.startswith("adaptive"):
        return partial(function, x, p.output_size, *([bool(p.indices)] if "max" in p.op else []))
    ceil_mode = p.output_size != output_size(p.size, p.filter, p.stride, p.padding, p.dilation)
    if p.op.startswith("max"):
        return partial(function, x, p.filter, p.stride, p.padding, p.dilation, ceil_mode, bool(p.indices))
    divisor = [] if p.op == "avg_pool1d" else [p.divisor or None]
    return partial(function, x, p.filter, p.stride, p.padding, ceil_mode, p.count_include_pad, *divisor)


def _norm(p: NormProblem, t: Tensors) -> Callable[[], object] | None:
    if p.pass_ != "forward" or p.op == "channel_sum":
        return None
    if p.op == "local_response_norm":
        return partial(F.local_response_norm, t["input"], p.window)
    run = partial(F.batch_norm, t["input"], t["running_mean"], t["running_var"], t["weight"], t["bias"], p.training)
    return partial(_epilogue, run, None, t.get("residual"), "relu" in p.epilogue) if p.epilogue else run


def _pointwise(p: PointwiseProblem, t: Tensors) -> Callable[[], object]:
    if p.pass_ == "forward":
        return partial(torch.relu, t["input"])
    return partial(torch.ops.aten.threshold_backward, t["grad_output"], t["input"], 0)


_CALLS: dict[type, Callable[..., Callable[[], object] | None]] = {
    ConvProblem: _conv, GemmProblem: _gemm, PoolProblem: _pool, NormProblem: _norm, PointwiseProblem: _pointwise,
}  # fmt: skip
