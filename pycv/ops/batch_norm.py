"""batch_norm: y = (x - mean) / sqrt(variance + eps) * weight + bias per channel (Ioffe and Szegedy 2015, algorithm 1).

Training takes biased statistics from the batch and moves the running ones; evaluation uses the running ones. One kernel
gives the gradients of input, weight and bias together. The double backward differentiates the gradient's formula in
torch's ops. Under torch.compile, export, transforms and modes the op is torch's own: compilers fuse it there. What is
unusual (mixed dtypes, statistics that lie in steps) is torch's too, and so are its errors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.autograd.graph import increment_version

from .. import registry, settings
from ..problem import Layout, NormProblem
from ._dispatch import DTYPES, context_key, layout_of, plain, remember, watched

_torch_batch_norm = F.batch_norm  # bound now: torch.nn.functional may be patched to lead here
_calls: dict[tuple, _Call] = {}


class _Scalars(NamedTuple):
    training: bool
    momentum: float
    eps: float


class _Call(NamedTuple):
    """A kernel and the memory format that it works in."""

    choice: registry.Choice
    strides: tuple[int, ...]  # of the output, and of grad_input
    copy: bool  # the tensor read lies otherwise


def batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps) -> Tensor:
    """See :func:`pycv.functional.batch_norm`."""
    per_channel = (running_mean, running_var, weight, bias)
    if watched() or not plain(x) or not _usual(x, per_channel, training):
        return _torch_batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    if training and x.numel() == x.shape[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")
    call = _call("forward", x, training)
    if call.choice.plan is None:
        if registry.recorders:
            with registry.timed(call.choice):
                return _torch_batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
        return _torch_batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    scalars = _Scalars(bool(training), float(momentum), float(eps))
    if torch.is_grad_enabled() and (
        x.requires_grad or (weight is not None and weight.requires_grad) or (bias is not None and bias.requires_grad)
    ):
        return _BatchNorm.apply(x, weight, bias, running_mean, running_var, scalars)
    return _forward(x, weight, bias, running_mean, running_var, scalars)[0]


def _usual(x: Tensor, per_channel, training: bool) -> bool:
    """Everything that the kernels take as it is; torch answers, or refuses, the rest."""
    if x.dim() < 2 or x.numel() == 0 or (not training and per_channel[0] is None):
        return False
    if (per_channel[0] is None) != (per_channel[1] is None):
        return False
    shape = x.shape[1:2]
    return all(
        t is None
        or (plain(t) and t.shape == shape and t.dtype == x.dtype and t.device == x.device and t.is_contiguous())
        for t in per_channel
    )


def _call(pass_: str, x: Tensor, training: bool) -> _Call:
    current = settings.current()
    key = (pass_, x.shape, x.stride(), x.dtype, x.device, bool(training), context_key(current))
    call = _calls.get(key)
    if call is None:
        n, c, *size = x.shape
        layout = layout_of(x)
        if pass_ == "grad_input" and layout is not None and layout.outer:
            layout = None  # the gradient is laid out as x: it must have no gaps and repeat no memory
        channels_last = x.dim() in (4, 5) and suggest_memory_format(x) is not torch.contiguous_format
        output = Layout("nhwc" if channels_last else "nchw")
        problem = NormProblem(
            "batch_norm", pass_, n, c, tuple(size), DTYPES.get(x.dtype, str(x.dtype)), x.device.type,
            layout or output, output, bool(training),
        )  # fmt: skip
        choice = registry.choose(problem, current, torch.get_num_threads())
        call = remember(_calls, key, _Call(choice, output.strides(c, tuple(size)), layout is None))
    return call


def _timed(run, call: _Call, *arguments):
    if registry.recorders:
        with registry.timed(call.choice):
            return run(call, *arguments)
    return run(call, *arguments)


def _pointer(t: Tensor | None) -> int:
    return 0 if t is None else t.data_ptr()


def _forward(x, weight, bias, running_mean, running_var, scalars: _Scalars):
    """y, and the mean and inverse deviation that training saves for the gradient."""
    return _timed(
        _run_forward, _call("forward", x, scalars.training), x, weight, bias, running_mean, running_var, scalars
    )


def _run_forward(call: _Call, x, weight, bias, running_mean, running_var, scalars):
    if call.copy:
        x = torch.empty_strided(x.shape, call.strides, dtype=x.dtype).copy_(x)
    y = torch.empty_strided(x.shape, call.strides, dtype=x.dtype)
    mean, invstd = (x.new_empty(x.shape[1]), x.new_empty(x.shape[1])) if scalars.training else (None, None)
    call.choice.plan.run(
        input=x.data_ptr(), output=y.data_ptr(), weight=_pointer(weight), bias=_pointer(bias),
        running_mean=_pointer(running_mean), running_var=_pointer(running_var), mean=_pointer(mean),
        invstd=_pointer(invstd), eps=scalars.eps, momentum=scalars.momentum,
    )  # fmt: skip
    if scalars.training and running_mean is not None:
        increment_version(running_mean)
        increment_version(running_var)
    return y, mean, invstd


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, scalars):
        y, mean, invstd = _forward(x, weight, bias, running_mean, running_var, scalars)
        if not scalars.training:
            mean, invstd = running_mean, running_var
        ctx.save_for_backward(x, weight, mean, invstd)
        ctx.scalars, ctx.settings = scalars, settings.current()
        return y

    @staticmethod
    def backward(ctx, grad_output):
        x, weight, mean, spread = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        with settings.applied(ctx.settings):
            if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, grad_output)):
                grads = _BatchNormGradient.apply(grad_output, x, weight, mean, spread, ctx.scalars, needs)
            else:
                grads = _gradient(grad_output, x, weight, mean, spread, ctx.scalars, needs)
        return *grads, None, None, None


def _gradient(grad_output, x, weight, mean, spread, scalars: _Scalars, needs):
    """Gradients of input, weight and bias, None where not needed.

    ``spread`` is the inverse deviation in training and the running variance in evaluation.
    """
    call = _call("grad_input", x, scalars.training)
    if call.choice.plan is None or watched() or not plain(grad_output):
        with registry.timed(call.choice):
            return _torch_gradient(grad_output, x, weight, mean, spread, scalars, needs)
    return _timed(_run_gradient, call, grad_output, x, weight, mean, spread, scalars, needs)


def _run_gradient(call: _Call, grad_output, x, weight, mean, spread, scalars, needs):
    if call.copy:
        x = torch.empty_strided(x.shape, call.strides, dtype=x.dtype).copy_(x)
    if grad_output.stride() != call.strides:
        grad_output = torch.empty_strided(x.shape, call.strides, dtype=x.dtype).copy_(grad_output)
    grad_x = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype) if needs[0] else None
    grad_weight, grad_bias = (x.new_empty(x.shape[1]) if need else None for need in needs[1:])
    statistics = ("mean", "invstd") if scalars.training else ("running_mean", "running_var")
    call.choice.plan.run(
        input=x.data_ptr(), grad_output=grad_output.data_ptr(), output=_pointer(grad_x), weight=_pointer(weight),
        grad_weight=_pointer(grad_weight), grad_bias=_pointer(grad_bias), eps=scalars.eps,
        **dict(zip(statistics, (mean.data_ptr(), spread.data_ptr()), strict=True)),
    )  # fmt: skip
    return grad_x, grad_weight, grad_bias


def _torch_gradient(grad_output, x, weight, mean, spread, scalars, needs):
    saved = (None, None, mean, spread) if scalars.training else (mean, spread, None, None)
    grads = torch.ops.aten.native_batch_norm_backward(
        grad_output, x, weight, *saved, scalars.training, scalars.eps, list(needs)
    )
    return tuple(g if need else None for g, need in zip(grads, needs, strict=True))


class _BatchNormGradient(torch.autograd.Function):
    """The gradient as a function of grad_output, input and weight, for the double backward."""

    @staticmethod
    def forward(ctx, grad_output, x, weight, mean, spread, scalars, needs):
        ctx.save_for_backward(grad_output, x, weight, mean, spread)
        ctx.scalars, ctx.needs = scalars, needs
        ctx.set_materialize_grads(False)
        return _gradient(grad_output, x, weight, mean, spread, scalars, needs)

    @staticmethod
    def backward(ctx, *grads):
        operands = list(ctx.saved_tensors[:3])
        if not torch.is_grad_enabled():
            operands = [None if t is None else t.detach().requires_grad_(t.requires_grad) for t in operands]
        wanted = [i for i in range(3) if ctx.needs_input_grad[i]]
        with torch.enable_grad():
            # Aliases: grad_output may itself depend on the input, and only what the formula does to each counts here.
            operands = [None if t is None else t.view_as(t) for t in operands]
            outputs = _formula(*operands, *ctx.saved_tensors[3:], ctx.scalars)
            kept = [(o, g) for o, g in zip(outputs, grads, strict=True) if o is not None and g is not None]
            found = torch.autograd.grad(
                [o for o, _ in kept], [operands[i] for i in wanted], [g for _, g in kept],
                create_graph=torch.is_grad_enabled(), allow_unused=True,
            )  # fmt: skip
        result = [None] * 7
        for i, gradient in zip(wanted, found, strict=True):
            result[i] = gradient
        return tuple(result)


def _formula(grad_output, x, weight, mean, spread, scalars: _Scalars):
    """The gradients of input, weight and bias in differentiable torch ops (batch statistics are functions of x)."""
    axes = [0, *range(2, x.dim())]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    if scalars.training:
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    else:
        variance, mean = spread.view(shape), mean.view(shape)
    invstd = (variance + scalars.eps).rsqrt()
    normal = (x - mean) * invstd
    grad_weight, grad_bias = (grad_output * normal).sum(axes), grad_output.sum(axes)
    g = grad_output if weight is None else grad_output * weight.view(shape)
    if scalars.training:
        g = g - g.mean(axes, keepdim=True) - normal * (g * normal).mean(axes, keepdim=True)
    return g * invstd, grad_weight if weight is not None else None, grad_bias
