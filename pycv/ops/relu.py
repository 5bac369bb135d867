"""relu: y = max(x, 0). Gradient: grad_output where y > 0 (NaN lets it through, as in torch), else 0.

Under torch.compile, export, transforms and modes the layer is torch's own op: it fuses there.

A call on a tiny tensor costs about as much as torch's (measured by `pycv bench`), so every line that runs each time is
weighed: one flat key, no keyword arguments, and autograd.Function's Python `apply`, which only prepares arguments for
functorch, is passed by.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .. import registry, settings
from ..problem import PointwiseProblem
from ._dispatch import DTYPES, context_key, plain, remember, watched

_choices: dict[tuple, registry.Choice] = {}


def relu(x: Tensor, inplace: bool = False) -> Tensor:
    """See :func:`pycv.functional.relu`."""
    if watched() or not plain(x):
        return torch.relu_(x) if inplace else torch.relu(x)
    current = settings.current()
    choice = _choice("forward", x, current)
    if choice.plan is not None and x.requires_grad and torch.is_grad_enabled():
        return _apply_relu(x, inplace, choice, current)
    return _forward(choice, x, inplace)


def relu_grad_input(y: Tensor, grad_output: Tensor, current: settings.Settings | None = None) -> Tensor:
    """grad_output where the relu's output y is not <= 0, else 0. Differentiable in grad_output.

    ``current`` is None for the settings in force.
    """
    if watched() or not (plain(y) and plain(grad_output)):
        return torch.ops.aten.threshold_backward(grad_output, y, 0)
    if current is None:
        current = settings.current()
    choice = _choice("grad_input", y, current)
    if choice.plan is not None and grad_output.requires_grad and torch.is_grad_enabled():
        return _apply_relu_grad_input(y, grad_output, choice, current)
    return _grad_input(choice, y, grad_output)


def _choice(pass_: str, x: Tensor, current: settings.Settings) -> registry.Choice:
    key = (pass_, x.numel(), x.dtype, x.device, *context_key(current))
    choice = _choices.get(key)
    if choice is None:
        problem = PointwiseProblem("relu", pass_, x.numel(), DTYPES.get(x.dtype, str(x.dtype)), x.device.type)
        choice = remember(_choices, key, registry.choose(problem, current, torch.get_num_threads()))
    return choice


def _is_dense(x: Tensor) -> bool:
    """Its elements fill one block of memory, in whatever order of axes."""
    return x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(x)


def _forward(choice: registry.Choice, x: Tensor, inplace: bool) -> Tensor:
    if registry.recorders:
        with registry.timed(choice):
            return _run_forward(choice, x, inplace)
    return _run_forward(choice, x, inplace)


def _run_forward(choice: registry.Choice, x: Tensor, inplace: bool) -> Tensor:
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


def _grad_input(choice: registry.Choice, y: Tensor, grad_output: Tensor) -> Tensor:
    if registry.recorders:
        with registry.timed(choice):
            return _run_grad_input(choice, y, grad_output)
    return _run_grad_input(choice, y, grad_output)


def _run_grad_input(choice: registry.Choice, y: Tensor, grad_output: Tensor) -> Tensor:
    if choice.plan is None:
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
    def forward(ctx, x, inplace, choice, current):
        y = _forward(choice, x, inplace)
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        ctx.settings = current
        return y

    @staticmethod
    def backward(ctx, grad_output):
        return relu_grad_input(*ctx.saved_tensors, grad_output, ctx.settings), None, None, None


class _ReluGradInput(torch.autograd.Function):
    """Linear in grad_output, constant almost everywhere in y: its own double backward is itself."""

    @staticmethod
    def forward(ctx, y, grad_output, choice, current):
        ctx.save_for_backward(y)
        ctx.settings = current
        return _grad_input(choice, y, grad_output)

    @staticmethod
    def backward(ctx, grad):
        return None, relu_grad_input(*ctx.saved_tensors, grad, ctx.settings), None, None


_apply_relu = super(torch.autograd.Function, _Relu).apply
_apply_relu_grad_input = super(torch.autograd.Function, _ReluGradInput).apply
