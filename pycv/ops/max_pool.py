"""max_pool1d/2d/3d and adaptive_max_pool1d/2d/3d: the largest element of each window and where it was.

Gradient: every grad_output goes to the element that its index names; it is linear in grad_output, so its own gradient
gathers by the same indices. Indices are computed only where the caller or a gradient needs them: int64 for the caller,
one byte per output for a gradient alone, the offset in its window, where windows have such (problem.has_offsets).
Under torch.compile, export, transforms and modes the op is torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .. import settings
from ._dispatch import plain, watched
from ._pool import (
    Prepared,
    adaptive_spec,
    grad_input_choice,
    memorize,
    prepare,
    recall,
    run_forward,
    run_grad_input,
    run_torch,
    window_spec,
)

# Bound now: torch.nn.functional may be patched to lead here.
_TORCH_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_TORCH_ADAPTIVE: dict[int, Any] = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}

_is_grad_enabled = torch.is_grad_enabled

Pooled = Any  # a tensor, or with return_indices a pair


def max_pool(rank, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices) -> Pooled:
    """See :func:`pycv.functional.max_pool2d`."""
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    if watched() or not isinstance(x, torch.Tensor):
        return _torch_max(rank, x, window, return_indices)
    needs_grad = _is_grad_enabled() and x.requires_grad
    indices = _indices(needs_grad, return_indices)
    key, prepared = recall(("max_pool", rank, window), x, indices)
    if prepared is None:
        if not plain(x):
            return _torch_max(rank, x, window, return_indices)
        prepared = memorize(key, prepare(window_spec("max_pool", rank, *window), x, indices))
    if prepared.launch is None:
        return run_torch(prepared.choice, _torch_max, rank, x, window, return_indices)
    return _pool(prepared, x, needs_grad, return_indices)


def adaptive_max_pool(rank, x, output_size, return_indices) -> Pooled:
    """See :func:`pycv.functional.adaptive_max_pool2d`."""
    if watched() or not isinstance(x, torch.Tensor):
        return _TORCH_ADAPTIVE[rank](x, output_size, return_indices)
    needs_grad = _is_grad_enabled() and x.requires_grad
    indices = _indices(needs_grad, return_indices)
    key, prepared = recall(("adaptive_max_pool", rank, output_size), x, indices)
    if prepared is None:
        if not plain(x):
            return _TORCH_ADAPTIVE[rank](x, output_size, return_indices)
        prepared = memorize(key, prepare(adaptive_spec("adaptive_max_pool", rank, output_size, x), x, indices))
    if prepared.launch is None:
        return run_torch(prepared.choice, _TORCH_ADAPTIVE[rank], x, output_size, return_indices)
    return _pool(prepared, x, needs_grad, return_indices)


def _indices(needs_grad: bool, return_indices) -> str:
    return "int64" if return_indices else "offset" if needs_grad else ""


def _torch_max(rank: int, x, window: tuple, return_indices) -> Pooled:
    *sizes, ceil_mode = window
    return _TORCH_MAX[rank](x, *sizes, ceil_mode=ceil_mode, return_indices=return_indices)


def _pool(prepared: Prepared, x: torch.Tensor, needs_grad: bool, return_indices: bool) -> Pooled:
    if needs_grad:
        out, indices = _apply_max_pool(x, prepared)
    else:
        out, indices = run_forward(prepared, x)
    return (out, indices) if return_indices else out


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, prepared):
        out, indices = run_forward(prepared, x)
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


_apply_max_pool = super(torch.autograd.Function, _MaxPool).apply  # below its Python part, which serves functorch


def _grad_input(grad_output: torch.Tensor, indices: torch.Tensor, prepared: Prepared) -> torch.Tensor:
    if watched() or not plain(grad_output):
        return _scatter(grad_output, indices, prepared)
    choice = grad_input_choice(prepared, grad_output)
    if choice.plan is None:
        return run_torch(choice, _scatter, grad_output, indices, prepared)
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
        positions = _planes(_positions(indices, ctx.prepared), rank)
        return _planes(grad, rank).gather(-1, positions).reshape(ctx.prepared.out_shape), None, None, None


def _scatter(grad_output: torch.Tensor, indices: torch.Tensor, prepared: Prepared) -> torch.Tensor:
    """The gradient in torch's ops."""
    shape, rank = prepared.input_shape, prepared.spec.rank
    zeros = _planes(grad_output.new_zeros(shape), rank)
    positions = _planes(_positions(indices, prepared), rank)
    return zeros.scatter_add(-1, positions, _planes(grad_output, rank)).reshape(shape)


def _positions(indices: torch.Tensor, prepared: Prepared) -> torch.Tensor:
    """Indices or offsets as indices: where in its plane each maximum lies."""
    if prepared.indices == "int64":
        return indices
    spec = prepared.spec
    size, out = prepared.input_shape[-spec.rank :], prepared.out_shape[-spec.rank :]
    positions, rest, step = torch.zeros_like(indices, dtype=torch.int64), indices.long(), 1
    for axis in reversed(range(spec.rank)):
        window = torch.arange(out[axis], device=indices.device).view(-1, *[1] * (spec.rank - 1 - axis))
        element = rest % spec.filter[axis] * spec.dilation[axis]
        positions += step * (window * spec.stride[axis] - spec.padding[axis] + element)
        rest, step = rest // spec.filter[axis], step * size[axis]
    return positions


def _planes(x: torch.Tensor, rank: int) -> torch.Tensor:
    """The last ``rank`` axes as one, by reshape: the older vmap, which batches gradients, cannot flatten."""
    return x.reshape(*x.shape[:-rank], x.shape[-rank:].numel())
