"""relu: y = max(x, 0). Gradient: grad_output where y > 0 (NaN lets it through, as in torch), else 0.

Under torch.compile, export, transforms and modes the layer is torch's own op: it fuses there.
"""

from __future__ import annotations

import torch
from torch.autograd.graph import increment_version

from .. import registry, settings
from ..problem import PointwiseProblem
from ._dispatch import DTYPES, context_key, plain, remember, watched

_choices: dict[tuple, registry.Choice] = {}


def relu(x: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    """See :func:`pycv.functional.relu`."""
    if watched() or not plain(x):
        return torch.relu_(x) if inplace else torch.relu(x)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return _forward(x, inplace)
    return _Relu.apply(x, inplace)


def relu_grad_input(y: torch.Tensor, grad_output: torch.Tensor) -> torch.Tensor:
    """grad_output where the relu's output y is not <= 0, else 0. Differentiable in grad_output."""
    if watched() or not (plain(y) and plain(grad_output)):
        return torch.ops.aten.threshold_backward(grad_output, y, 0)
    if torch.is_grad_enabled() and grad_output.requires_grad:
        return _ReluGradInput.apply(y, grad_output)
    return _grad_input(y, grad_output)


def _choice(pass_: str, x: torch.Tensor) -> registry.Choice:
    current = settings.current()
    key = (pass_, x.numel(), x.dtype, x.device, context_key(current))
    choice = _choices.get(key)
    if choice is None:
        problem = PointwiseProblem("relu", pass_, x.numel(), DTYPES.get(x.dtype, str(x.dtype)), x.device.type)
        choice = remember(_choices, key, registry.choose(problem, current, torch.get_num_threads()))
    return choice


def _is_dense(x: torch.Tensor) -> bool:
    """Its elements fill one block of memory, in whatever order of axes."""
    return x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(x)


def _forward(x: torch.Tensor, inplace: bool) -> torch.Tensor:
    choice = _choice("forward", x)
    if registry.recorders:
        with registry.timed(choice):
            return _run_forward(choice, x, inplace)
    return _run_forward(choice, x, inplace)


def _run_forward(choice: registry.Choice, x: torch.Tensor, inplace: bool) -> torch.Tensor:
    if choice.plan is None:
        return torch.relu_(x) if inplace else torch.relu(x)
    if inplace and _is_dense(x):
        choice.plan.run(x.data_ptr(), 0, x.data_ptr())
        increment_version(x)
        return x
    source = x if _is_dense(x) else x.contiguous()
    out = torch.empty_like(source)
    choice.plan.run(source.data_ptr(), 0, out.data_ptr())
    return x.copy_(out) if inplace else out


def _grad_input(y: torch.Tensor, grad_output: torch.Tensor) -> torch.Tensor:
    choice = _choice("grad_input", y)
    if registry.recorders:
        with registry.timed(choice):
            return _run_grad_input(choice, y, grad_output)
    return _run_grad_input(choice, y, grad_output)


def _run_grad_input(choice: registry.Choice, y: torch.Tensor, grad_output: torch.Tensor) -> torch.Tensor:
    if choice.plan is None or not plain(grad_output):
        return torch.ops.aten.threshold_backward(grad_output, y, 0)
    if not _is_dense(y):
        y = y.contiguous()
    if grad_output.stride() != y.stride():
        grad_output = torch.empty_like(y).copy_(grad_output)
    grad_input = torch.empty_like(y)
    choice.plan.run(y.data_ptr(), grad_output.data_ptr(), grad_input.data_ptr())
    return grad_input


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, inplace):
        y = _forward(x, inplace)
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        ctx.settings = settings.current()
        return y

    @staticmethod
    def backward(ctx, grad_output):
        (y,) = ctx.saved_tensors
        with settings.applied(ctx.settings):
            return relu_grad_input(y, grad_output), None


class _ReluGradInput(torch.autograd.Function):
    """Linear in grad_output, constant almost everywhere in y: its own double backward is itself."""

    @staticmethod
    def forward(ctx, y, grad_output):
        ctx.save_for_backward(y)
        ctx.settings = settings.current()
        return _grad_input(y, grad_output)

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        with settings.applied(ctx.settings):
            return None, relu_grad_input(y, grad)
