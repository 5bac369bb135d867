"""local_response_norm: y = x / (k + alpha / size * sum of x^2 over ``size`` neighbouring channels)^beta.

Krizhevsky, Sutskever and Hinton 2012, section 3.3, with alpha divided by the size, as torch has it. The double backward
differentiates the gradient's formula in torch's ops. Under torch.compile, export, transforms and modes the op is
torch's own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import registry, settings
from ..problem import Layout, NormProblem
from ._dispatch import DTYPES, choose, context_key, layout_of, plain, remember, watched
from ._workspace import workspace

_torch_local_response_norm = F.local_response_norm  # bound now: torch.nn.functional may be patched to lead here
_calls: dict[tuple, _Call] = {}


class _Scalars(NamedTuple):
    size: int
    alpha: float
    beta: float
    k: float


class _Call(NamedTuple):
    choice: registry.Choice
    strides: tuple[int, ...]  # of everything written
    copy: bool  # the input lies otherwise


def local_response_norm(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """See :func:`pycv.functional.local_response_norm`."""
    numbers = type(size) is int and all(isinstance(v, (int, float)) for v in (alpha, beta, k))
    if watched() or not (numbers and plain(x) and x.dim() >= 3 and x.numel() > 0 and 0 < size < 2**63):
        return _torch_local_response_norm(x, size, alpha, beta, k)
    call = _call("forward", x, size)
    if call.choice.plan is None:
        if registry.recorders:
            with registry.timed(call.choice):
                return _torch_local_response_norm(x, size, alpha, beta, k)
        return _torch_local_response_norm(x, size, alpha, beta, k)
    scalars = _Scalars(size, float(alpha), float(beta), float(k))
    if torch.is_grad_enabled() and x.requires_grad:
        return _LocalResponseNorm.apply(x, scalars)
    return _forward(x, scalars)


def _call(pass_: str, x: Tensor, size: int) -> _Call:
    current = settings.current()
    key = (pass_, x.shape, x.stride(), x.dtype, x.device, size, context_key(current))
    call = _calls.get(key)
    if call is None:
        n, c, *spatial = x.shape
        if len(spatial) > 3:  # only channels matter: the rest is one axis
            layout = Layout() if x.is_contiguous() else None
            spatial = [x[0, 0].numel()]
        else:
            layout = layout_of(x)
            if pass_ == "grad_input" and layout is not None and layout.outer:
                layout = None  # the gradient is laid out as x: it must have no gaps and repeat no memory
        output = Layout(layout.name if layout is not None else "nchw")
        dtype = DTYPES.get(x.dtype, str(x.dtype))
        problem = NormProblem(
            "local_response_norm", pass_, n, c, tuple(spatial), dtype, x.device.type, layout or output, output,
            window=size,
        )  # fmt: skip
        choice = choose(x.device, problem, current)
        if x.dim() > 5:
            strides = x.contiguous().stride() if layout is None else x.stride()
        else:
            strides = output.strides(c, tuple(spatial))
        call = remember(_calls, key, _Call(choice, tuple(strides), layout is None))
    return call


def _forward(x: Tensor, scalars: _Scalars) -> Tensor:
    call = _call("forward", x, scalars.size)
    if registry.recorders:
        with registry.timed(call.choice):
            return _run(call, x, None, scalars)
    return _run(call, x, None, scalars)


def _grad_input(x: Tensor, grad_output: Tensor, scalars: _Scalars) -> Tensor:
    call = _call("grad_input", x, scalars.size)
    if call.choice.plan is None or watched() or not plain(grad_output):
        with registry.timed(call.choice):
            return _formula(x, grad_output, scalars)
    if registry.recorders:
        with registry.timed(call.choice):
            return _run(call, x, grad_output, scalars)
    return _run(call, x, grad_output, scalars)


def _run(call: _Call, x: Tensor, grad_output: Tensor | None, scalars: _Scalars) -> Tensor:
    """y, or the gradient of x where grad_output is given."""
    if call.copy:
        x = x.new_empty_strided(x.shape, call.strides).copy_(x)
    if grad_output is not None and grad_output.stride() != call.strides:
        grad_output = x.new_empty_strided(x.shape, call.strides).copy_(grad_output)
    out = x.new_empty_strided(x.shape, x.stride() if grad_output is not None else call.strides)
    plan = call.choice.plan
    _memory, scratch = workspace(plan.workspace_bytes, x)
    plan.run(
        input=x.data_ptr(), grad_output=0 if grad_output is None else grad_output.data_ptr(), output=out.data_ptr(),
        alpha=scalars.alpha, beta=scalars.beta, k=scalars.k, workspace=scratch,
    )  # fmt: skip
    return out


class _LocalResponseNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scalars):
        ctx.save_for_backward(x)
        ctx.scalars, ctx.settings = scalars, settings.current()
        return _forward(x, scalars)

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        with settings.applied(ctx.settings):
            if torch.is_grad_enabled() and (x.requires_grad or grad_output.requires_grad):
                return _formula(x, grad_output, ctx.scalars), None  # differentiable: this may be differentiated again
            return _grad_input(x, grad_output, ctx.scalars), None


def _formula(x: Tensor, grad_output: Tensor, scalars: _Scalars) -> Tensor:
    """The gradient in torch's ops: g s^-beta - 2 alpha beta / size x * (mirrored window sum of g x s^(-beta - 1))."""
    size, alpha, beta, k = scalars
    before, after = size // 2, (size - 1) // 2
    s = k + alpha / size * _window_sum(x * x, before, after)
    inner = _window_sum(grad_output * x * s.pow(-beta - 1), after, before)
    return grad_output * s.pow(-beta) - (2 * alpha * beta / size) * x * inner


def _window_sum(x: Tensor, before: int, after: int) -> Tensor:
    """For each channel the sum of it, ``before`` channels in front of it and ``after`` behind it."""
    n, c = x.shape[:2]
    padded = torch.cat([x.new_zeros(n, before, *x.shape[2:]), x, x.new_zeros(n, after, *x.shape[2:])], 1)
    return torch.stack([padded.narrow(1, j, c) for j in range(before + after + 1)]).sum(0)
