"""avg_pool1d/2d/3d and adaptive_avg_pool1d/2d/3d: the sum of each window over its divisor.

Linear: the gradient spreads each grad_output over its window, and the gradient of that is the pooling again.
Under torch.compile, export, transforms and modes the op is torch's own; in an export with a divisor of one's own, two
of them.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
import torch.nn.functional as F

from .. import settings
from ._dispatch import plain, require_64_bits, watched
from ._pool import (
    Prepared,
    Spec,
    adaptive_spec,
    grad_input_choice,
    memorize,
    output_size_of,
    prepare,
    recall,
    require_axes,
    run_forward,
    run_grad_input,
    run_torch,
    window_spec,
)

# Bound now: torch.nn.functional may be patched to lead here.
_TORCH_AVG = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_TORCH_ADAPTIVE: dict[int, Any] = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def avg_pool(rank, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override) -> torch.Tensor:
    """See :func:`pycv.functional.avg_pool2d`."""
    arguments = ("avg_pool", rank, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    seen = watched() or not isinstance(x, torch.Tensor)
    key, prepared = (None, None) if seen else recall(arguments, x)
    if prepared is None:
        if seen or not plain(x):
            if divisor_override and torch.compiler._is_exporting_flag:  # 0 is for torch to refuse
                return _exportable(rank, x, kernel_size, stride, padding, ceil_mode, divisor_override)
            last = () if rank == 1 else (divisor_override,)
            return _TORCH_AVG[rank](x, kernel_size, stride, padding, ceil_mode, count_include_pad, *last)
        divisor = None
        if divisor_override is not None:
            try:
                divisor = operator.index(divisor_override)
            except TypeError:
                raise TypeError(
                    f"avg_pool{rank}d(): argument 'divisor_override' must be int, not {divisor_override!r}"
                ) from None
            require_64_bits(f"avg_pool{rank}d", "divisor_override", divisor_override, divisor)
        spec = window_spec("avg_pool", rank, kernel_size, stride, padding, 1, ceil_mode, count_include_pad, divisor)
        prepared = memorize(key, prepare(spec, x))
    return _pool(prepared, x)


def _exportable(rank, x, kernel_size, stride, padding, ceil_mode, divisor) -> torch.Tensor:
    """avg_pool with a divisor of one's own in ops that torch exports to ONNX whole: it drops ``divisor_override``."""
    spec = window_spec("avg_pool", rank, kernel_size, stride, padding, 1, ceil_mode, True, divisor)
    if ceil_mode:  # windows over the edge count the elements that they have: none is over the edge of more zeros
        sizes, zeros = tuple(x.shape[-rank:]), list[int]()
        axes = zip(sizes, output_size_of(spec, sizes), spec.filter, spec.stride, spec.padding, strict=True)
        for size, out, k, s, p in axes:
            zeros = [p, max(0, (out - 1) * s + k - size - p), *zeros]  # F.pad takes the last axis first
        x = F.pad(x, zeros)
    pooled = _TORCH_AVG[rank](x, spec.filter, spec.stride, 0 if ceil_mode else spec.padding)
    return pooled * (math.prod(spec.filter) / divisor)


def adaptive_avg_pool(rank, x, output_size) -> torch.Tensor:
    """See :func:`pycv.functional.adaptive_avg_pool2d`."""
    seen = watched() or not isinstance(x, torch.Tensor)
    key, prepared = (None, None) if seen else recall(("adaptive_avg_pool", rank, output_size), x)
    if prepared is None:
        # torch takes, for output size 1 alone, inputs without elements or with fewer axes: it decides on those.
        if seen or not plain(x) or x.dim() not in (rank + 1, rank + 2) or 0 in x.shape[-rank:]:
            if not seen:
                require_axes("adaptive_avg_pool", rank, output_size, x)
            return _TORCH_ADAPTIVE[rank](x, output_size)
        prepared = memorize(key, prepare(adaptive_spec("adaptive_avg_pool", rank, output_size, x), x))
    return _pool(prepared, x)


def _pool(prepared: Prepared, x: torch.Tensor) -> torch.Tensor:
    if prepared.launch is None:
        return run_torch(prepared.choice, _torch_op, prepared.spec, x)
    if torch.is_grad_enabled() and x.requires_grad:
        return _apply_avg_pool(x, prepared)
    return run_forward(prepared, x)[0]


def _torch_op(spec: Spec, x: torch.Tensor) -> torch.Tensor:
    if not spec.filter:
        return _TORCH_ADAPTIVE[spec.rank](x, spec.output_size)
    divisor = () if spec.rank == 1 else (spec.divisor,)
    return _TORCH_AVG[spec.rank](
        x, spec.filter, spec.stride, spec.padding, spec.ceil_mode, spec.count_include_pad, *divisor
    )


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, prepared):
        ctx.prepared = prepared
        ctx.settings = settings.current()
        return run_forward(prepared, x)[0]

    @staticmethod
    def backward(ctx, grad_output):
        with settings.applied(ctx.settings):
            return _grad_input(grad_output, ctx.prepared), None


_apply_avg_pool = super(torch.autograd.Function, _AvgPool).apply  # below its Python part, which serves functorch


def _grad_input(grad_output: torch.Tensor, prepared: Prepared) -> torch.Tensor:
    if watched() or not plain(grad_output):
        return _spread(grad_output, prepared)
    choice = grad_input_choice(prepared, grad_output)
    if choice.plan is None:
        return run_torch(choice, _spread, grad_output, prepared)
    if torch.is_grad_enabled() and grad_output.requires_grad:
        return _AvgPoolGradInput.apply(grad_output, prepared, choice)
    return run_grad_input(choice, prepared, grad_output, None)


class _AvgPoolGradInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad_output, prepared, choice):
        ctx.spec = prepared.spec
        ctx.settings = settings.current()
        return run_grad_input(choice, prepared, grad_output, None)

    @staticmethod
    def backward(ctx, grad):
        if watched() or not plain(grad):
            return _torch_op(ctx.spec, grad), None, None
        with settings.applied(ctx.settings):
            return _pool(prepare(ctx.spec, grad), grad), None, None


def _spread(grad_output: torch.Tensor, prepared: Prepared) -> torch.Tensor:
    """The gradient by torch's own op: that of a linear function, at any point."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = torch.zeros(prepared.input_shape, dtype=grad_output.dtype, device=grad_output.device, requires_grad=True)
        out = _torch_op(prepared.spec, x)
        (grad_input,) = torch.autograd.grad(out, x, grad_output, create_graph=create_graph)
    return grad_input
