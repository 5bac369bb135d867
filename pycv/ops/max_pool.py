"""max_pool1d/2d/3d and adaptive_max_pool1d/2d/3d: the largest element of each window and where it was.

Gradient: every grad_output goes to the element that its index names; it is linear in grad_output, so its own gradient
gathers by the same indices. Indices are computed only where the caller or a gradient needs them.
Under torch.compile, export, transforms and modes the op is torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .. import registry, settings
from ._dispatch import plain, watched
from ._pool import Prepared, Spec, adaptive_spec, grad_input_choice, prepare, run_forward, run_grad_input, window_spec

# Bound now: torch.nn.functional may be patched to lead here.
_TORCH_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_TORCH_ADAPTIVE = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}

Pooled = Any  # a tensor, or with return_indices a pair


def max_pool(rank, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices) -> Pooled:
    """See :func:`pycv.functional.max_pool2d`."""

    def torch_op():
        return _TORCH_MAX[rank](
            x, kernel_size, stride, padding, dilation, ceil_mode=ceil_mode, return_indices=return_indices
        )

    if watched() or not plain(x):
        return torch_op()
    spec = window_spec("max_pool", rank, kernel_size, stride, padding, dilation, ceil_mode)
    return _pool(spec, x, return_indices, torch_op)


def adaptive_max_pool(rank, x, output_size, return_indices) -> Pooled:
    """See :func:`pycv.functional.adaptive_max_pool2d`."""

    def torch_op():
        return _TORCH_ADAPTIVE[rank](x, output_size, return_indices=return_indices)

    if watched() or not plain(x):
        return torch_op()
    return _pool(adaptive_spec("adaptive_max_pool", rank, output_size, x), x, return_indices, torch_op)


def _pool(spec: Spec, x: torch.Tensor, return_indices: bool, torch_op) -> Pooled:
    needs_grad = torch.is_grad_enabled() and x.requires_grad
    prepared = prepare(spec, x, needs_grad or bool(return_indices))
    if prepared.choice.plan is None:
        if registry.recorders:
            with registry.timed(prepared.choice):
                return torch_op()
        return torch_op()
    if needs_grad:
        out, indices = _MaxPool.apply(x, prepared)
    else:
        out, indices = run_forward(prepared, x, bool(return_indices))
    return (out, indices) if return_indices else out


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, prepared):
        out, indices = run_forward(prepared, x, True)
        ctx.mark_non_differentiable(indices)
        ctx.save_for_backward(indices)
        ctx.set_materialize_grads(False)
        ctx.prepared = prepared
        ctx.settings = settings.current()
        return out, indices

    @staticmethod
    def backward(ctx, grad_output, _):
        if grad_output is None:
            return None, None
        (indices,) = ctx.saved_tensors
        with settings.applied(ctx.settings):
            return _grad_input(grad_output, indices, ctx.prepared), None


def _grad_input(grad_output: torch.Tensor, indices: torch.Tensor, prepared: Prepared) -> torch.Tensor:
    if watched() or not plain(grad_output):
        return _scatter(grad_output, indices, prepared)
    choice = grad_input_choice(prepared, grad_output, True)
    if choice.plan is None:
        if registry.recorders:
            with registry.timed(choice):
                return _scatter(grad_output, indices, prepared)
        return _scatter(grad_output, indices, prepared)
    if torch.is_grad_enabled() and grad_output.requires_grad:
        return _MaxPoolGradInput.apply(grad_output, indices, prepared, choice)
    return run_grad_input(choice, prepared, grad_output, indices)


class _MaxPoolGradInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad_output, indices, prepared, choice):
        ctx.save_for_backward(indices)
        ctx.prepared = prepared
        return run_grad_input(choice, prepared, grad_output, indices)

    @staticmethod
    def backward(ctx, grad):
        (indices,) = ctx.saved_tensors
        rank = ctx.prepared.spec.rank
        planes = grad.flatten(-rank)
        return planes.gather(-1, indices.flatten(-rank)).reshape(ctx.prepared.out_shape), None, None, None


def _scatter(grad_output: torch.Tensor, indices: torch.Tensor, prepared: Prepared) -> torch.Tensor:
    """The gradient in torch's ops."""
    shape, rank = prepared.input_shape, prepared.spec.rank
    zeros = grad_output.new_zeros(shape).flatten(-rank)
    return zeros.scatter_add(-1, indices.flatten(-rank), grad_output.flatten(-rank)).reshape(shape)
