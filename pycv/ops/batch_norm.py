"""batch_norm: y = (x - mean) / sqrt(variance + eps) * weight + bias per channel (Ioffe and Szegedy 2015, algorithm 1).

Training takes biased statistics from the batch and moves the running ones; evaluation uses the running ones. A residual
and relu may follow in the same pass over memory. One kernel gives the gradients of input, weight, bias and residual
together. The double backward differentiates the gradient's formula in torch's ops. Under torch.compile, export,
transforms and modes the op is torch's own: compilers fuse it there. What is unusual (mixed dtypes, statistics that lie
in steps) is torch's too, and so are its errors.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.autograd.graph import increment_version

from .. import registry, settings
from ..problem import Layout, NormProblem
from ._dispatch import DTYPES, choose, context_key, deterministic, layout_of, plain, remember, threads, watched
from ._workspace import workspace
from .conv_arguments import require_activation, require_residual
from .relu import relu_grad_input

_torch_batch_norm = F.batch_norm  # bound now: torch.nn.functional may be patched to lead here
_is_grad_enabled = torch.is_grad_enabled
_calls: dict[tuple, _Call] = {}


def batch_norm(
    x, running_mean, running_var, weight, bias, training, momentum, eps, residual=None, activation=None
) -> Tensor:
    """See :func:`pycv.functional.batch_norm`."""
    per_channel = (running_mean, running_var, weight, bias)
    if watched() or eps < 0 or (training and eps <= 0):
        return _torch(x, per_channel, training, momentum, eps, residual, require_activation(activation))
    current = settings.current()
    key = _key(x, per_channel, training, residual, activation, current)
    call = _calls.get(key) if key is not None else None  # type: ignore[arg-type]
    if call is None:
        relu = require_activation(activation)
        foreign = not plain(x) or (residual is not None and not plain(residual))
        if foreign or not _usual(x, per_channel, training):
            return _torch(x, per_channel, training, momentum, eps, residual, relu)
        if training and x.numel() == x.shape[1]:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")
        require_residual(residual, tuple(x.shape), x)
        call = _Call(x, bool(training), residual is not None, relu, current)
        if key is not None:
            remember(_calls, key, call)
    if call.choice.plan is None:
        with registry.timed(call.choice):
            return _torch(x, per_channel, training, momentum, eps, residual, call.relu)
    try:
        if _is_grad_enabled() and (
            x.requires_grad
            or (weight is not None and weight.requires_grad)
            or (bias is not None and bias.requires_grad)
            or (residual is not None and residual.requires_grad)
            or (running_mean is not None and (running_mean.requires_grad or running_var.requires_grad))
        ):
            if _refused_by_autograd(x, running_mean, running_var, weight):
                return _torch(x, per_channel, training, momentum, eps, residual, call.relu)
            return _apply_batch_norm(x, weight, bias, residual, running_mean, running_var, momentum, eps, call)
        return call.forward(x, weight, bias, residual, running_mean, running_var, momentum, eps)[0]
    except RuntimeError:
        if all(t is None or plain(t) for t in (x, residual, *per_channel)):
            raise
        return _torch(x, per_channel, training, momentum, eps, residual, call.relu)  # no memory after all


def _key(x, per_channel, training, residual, activation, current) -> tuple | None:
    """What a call depends on; None for arguments that cannot be a key. A key that is known means plain memory,
    but for what shows where its memory is asked for (see conv._key)."""
    a, b, c, d = per_channel
    try:
        hash(activation)
        return (
            bool(training), activation,
            type(x), x.shape, x.stride(), x.dtype, x.device, x.is_neg(), x.layout,
            None if a is None else (type(a), a.shape, a.stride(), a.dtype, a.device, a.is_neg()),
            None if b is None else (type(b), b.shape, b.stride(), b.dtype, b.device, b.is_neg()),
            None if c is None else (type(c), c.shape, c.stride(), c.dtype, c.device, c.is_neg()),
            None if d is None else (type(d), d.shape, d.stride(), d.dtype, d.device, d.is_neg()),
            None if residual is None else (
                type(residual), residual.shape, residual.dtype, residual.device, residual.is_neg(),
                residual.layout,
            ),
            *context_key(current),
        )  # fmt: skip
    except (AttributeError, TypeError, RuntimeError):
        return None


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


def _refused_by_autograd(x, mean, var, weight) -> bool:
    """torch says so before the running statistics move: one requires a gradient, or what is saved cannot be."""
    return (
        x.is_inference()
        or (weight is not None and weight.is_inference())
        or (mean is not None and (mean.requires_grad or var.requires_grad or mean.is_inference() or var.is_inference()))
    )


def _torch(x, per_channel, training, momentum, eps, residual, relu: bool) -> Tensor:
    mean, var, weight, bias = per_channel
    y = _torch_batch_norm(x, mean, var, weight, bias, training, momentum, eps)
    if residual is not None:
        require_residual(residual, tuple(y.shape), y)
        y = y + residual
    return torch.relu(y) if relu else y


def _pointer(t: Tensor | None) -> int:
    return 0 if t is None else t.data_ptr()


class _Run:
    """A choice, and what the call of its plan takes."""

    __slots__ = ("choice", "launch", "workspace_bytes")

    def __init__(self, choice: registry.Choice):
        self.choice = choice
        plan = choice.plan
        self.launch: Any = plan.launch if plan is not None else None
        self.workspace_bytes = plan.workspace_bytes if plan is not None else 0


class _Call:
    """All that follows from shapes, strides and settings: the kernels, what to allocate, what must be copied."""

    def __init__(self, x: Tensor, training: bool, residual: bool, relu: bool, current: settings.Settings):
        self.training, self.relu, self.settings, self.device = training, relu, current, x.device
        n, c, *size = x.shape
        channels_last = x.dim() in (4, 5) and suggest_memory_format(x) is not torch.contiguous_format
        self.strides = Layout("nhwc" if channels_last else "nchw").strides(c, tuple(size))
        self.dense = Layout.of(tuple(x.shape), self.strides) or Layout()  # the name that layout_of gives this memory
        layout = layout_of(x)
        self.copy = layout is None or layout.name != self.dense.name
        self.input = self.dense if layout is None or self.copy else layout
        self.is_dense = x.stride() == self.strides
        steps = [("residual", residual), ("relu", relu)]
        self.problem = NormProblem(
            "batch_norm", "forward", n, c, tuple(size), DTYPES.get(x.dtype, str(x.dtype)), x.device.type,
            self.input, self.dense, training, residual=self.dense if residual else None,
            epilogue=tuple(name for name, present in steps if present),
        )  # fmt: skip
        self.run = _Run(choose(self.device, self.problem, current))
        self.choice = self.run.choice
        self.gradients: dict[tuple, _Run] = {}
        # Of the batch's mean and inverse deviation, which lie one after the other: the type that they are computed in.
        self.statistic = torch.promote_types(x.dtype, torch.float32)
        self.statistic_bytes = c * self.statistic.itemsize

    def gradient_run(self, writes_residual: bool) -> _Run:
        """The kernel of the gradient, which may also write that of the residual."""
        key = (writes_residual, threads(), deterministic())
        run = self.gradients.get(key)
        if run is None:
            p = self.problem
            problem = NormProblem(
                "batch_norm", "grad_input", p.n, p.c, p.size, p.dtype, p.device, self.dense, self.dense, p.training,
                residual=self.dense if writes_residual else None,
                epilogue=tuple(step for step in p.epilogue if step == "relu" or writes_residual),
            )  # fmt: skip
            run = self.gradients[key] = _Run(choose(self.device, problem, self.settings))
        return run

    def laid_out(self, t: Tensor) -> Tensor:
        """The tensor, or a dense copy where it lies otherwise."""
        if t.stride() == self.strides:
            return t
        return t.new_empty_strided(t.shape, self.strides).copy_(t)

    def forward(self, x, weight, bias, residual, running_mean, running_var, momentum, eps, saved=False):
        """y, and what is saved for the gradient: the means, then the inverse deviations of training, else the running
        variances."""
        if not registry.recorders:
            return self._forward(x, weight, bias, residual, running_mean, running_var, momentum, eps, saved)
        with registry.timed(self.choice):
            return self._forward(x, weight, bias, residual, running_mean, running_var, momentum, eps, saved)

    def _forward(self, x, weight, bias, residual, running_mean, running_var, momentum, eps, saved):
        if self.copy:
            x = self.laid_out(x)
        if residual is not None:
            residual = self.laid_out(residual)
        y = torch.empty_like(x) if self.is_dense else x.new_empty_strided(x.shape, self.strides)
        statistics, mean, invstd = None, 0, 0
        if self.training:
            statistics = torch.empty_strided((2, x.shape[1]), (x.shape[1], 1), dtype=self.statistic, device=x.device)
            mean = statistics.data_ptr()
            invstd = mean + self.statistic_bytes
        elif saved:  # a copy: training may move the running statistics before the gradient needs them
            statistics = torch.stack((running_mean, running_var))
        memory, scratch = workspace(self.run.workspace_bytes, x)
        self.run.launch(
            x.data_ptr(), 0, y.data_ptr(), _pointer(weight), _pointer(bias), _pointer(running_mean),
            _pointer(running_var), mean, invstd, 0, 0, scratch, _pointer(residual), 0, 0, eps, momentum,
        )  # fmt: skip
        del memory
        if self.training and running_mean is not None:
            increment_version((running_mean, running_var))
        return y, statistics

    def gradient(self, grad_output, x, weight, statistics, y, eps: float, needs):
        """Gradients of input, weight, bias and residual, None where not needed.

        ``statistics`` are those that training saved, or the running means and variances. ``y`` is the output where relu
        followed.
        """
        run = self.gradient_run(self.relu and needs[3])
        if run.launch is None or watched() or not plain(grad_output):
            with registry.timed(run.choice):
                if y is not None:
                    grad_output = torch.ops.aten.threshold_backward(grad_output, y, 0)
                grads = _torch_gradient(grad_output, x, weight, statistics, self.training, eps, needs[:3])
                return *grads, grad_output if needs[3] else None
        if not registry.recorders:
            return self._gradient(run, grad_output, x, weight, statistics, y, eps, needs)
        with registry.timed(run.choice):
            return self._gradient(run, grad_output, x, weight, statistics, y, eps, needs)

    def _gradient(self, run, grad_output, x, weight, statistics, y, eps, needs):
        x, given, grad_output = self.laid_out(x), grad_output, self.laid_out(grad_output)
        grad_x = torch.empty_like(x) if needs[0] else None
        grad_weight = torch.empty_like(weight) if needs[1] else None
        grad_bias = x.new_empty(x.shape[1]) if needs[2] else None
        grad_residual = given if needs[3] else None
        if y is not None and needs[3]:
            grad_residual = torch.empty_like(x)
        means = statistics.data_ptr()
        spreads = means + x.shape[1] * statistics.itemsize
        pointers = (0, 0, means, spreads) if self.training else (means, spreads, 0, 0)
        memory, scratch = workspace(run.workspace_bytes, x)
        run.launch(
            x.data_ptr(), grad_output.data_ptr(), _pointer(grad_x), _pointer(weight), 0, *pointers,
            _pointer(grad_weight), _pointer(grad_bias), scratch, 0, _pointer(y),
            _pointer(grad_residual) if y is not None else 0, eps, 0.0,
        )  # fmt: skip
        del memory
        return grad_x, grad_weight, grad_bias, grad_residual


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, residual, running_mean, running_var, momentum, eps, call):
        y, statistics = call.forward(x, weight, bias, residual, running_mean, running_var, momentum, eps, saved=True)
        ctx.save_for_backward(x, weight, statistics, y if call.relu else None)
        ctx.eps, ctx.call = eps, call
        return y

    @staticmethod
    def backward(ctx, grad_output):
        x, weight, statistics, y = ctx.saved_tensors
        needs, call = ctx.needs_input_grad[:4], ctx.call
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, grad_output)):
            with settings.applied(call.settings):
                if y is not None:
                    grad_output = relu_grad_input(y, grad_output)
                grad_residual = grad_output if needs[3] else None
                if watched() or not plain(grad_output):  # many gradients at once: our own Function knows one
                    grads = _formula(grad_output, x, weight, statistics, call.training, ctx.eps)
                    kept = (g if need else None for g, need in zip(grads, needs[:3], strict=True))
                    return *kept, grad_residual, None, None, None, None, None
                linear = _Call(x, call.training, False, False, call.settings)
                grads = _BatchNormGradient.apply(
                    grad_output, x, weight, statistics, ctx.eps, linear, (*needs[:3], False)
                )
                return *grads, grad_residual, None, None, None, None, None
        grads = call.gradient(grad_output, x, weight, statistics, y, ctx.eps, needs)
        return *grads, None, None, None, None, None


_apply_batch_norm = super(torch.autograd.Function, _BatchNorm).apply  # below its Python part, which serves functorch


def _torch_gradient(grad_output, x, weight, statistics, training, eps, needs):
    nothing = x.new_empty(0, dtype=torch.promote_types(x.dtype, torch.float32))  # vmap's rule wants tensors
    four = (None, None, *statistics) if training else (*statistics, nothing, nothing)
    grads = torch.ops.aten.native_batch_norm_backward(grad_output, x, weight, *four, training, eps, list(needs))
    return tuple(g if need else None for g, need in zip(grads, needs, strict=True))


class _BatchNormGradient(torch.autograd.Function):
    """The gradient as a function of grad_output, input and weight, for the double backward."""

    @staticmethod
    def forward(ctx, grad_output, x, weight, statistics, eps, call, needs):
        ctx.save_for_backward(grad_output, x, weight, statistics)
        ctx.training, ctx.eps = call.training, eps
        ctx.set_materialize_grads(False)
        return call.gradient(grad_output, x, weight, statistics, None, eps, needs)[:3]

    @staticmethod
    def backward(ctx, *grads):
        wanted = [i for i in range(3) if ctx.needs_input_grad[i]]
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            # Aliases: grad_output may itself depend on the input, and only what the formula does to each counts here.
            operands = [None if t is None else t.view_as(t) for t in ctx.saved_tensors[:3]]
            outputs = _formula(*operands, *ctx.saved_tensors[3:], ctx.training, ctx.eps)
            kept = [(o, g) for o, g in zip(outputs, grads, strict=True) if o is not None and g is not None]
            found = torch.autograd.grad(
                [o for o, _ in kept], [operands[i] for i in wanted], [g for _, g in kept],
                create_graph=again, allow_unused=True,
            )  # fmt: skip
        result = [None] * 7
        for i, gradient in zip(wanted, found, strict=True):
            result[i] = gradient
        return tuple(result)


def _formula(grad_output, x, weight, statistics, training: bool, eps: float):
    """The gradients of input, weight and bias in differentiable torch ops (batch statistics are functions of x)."""
    axes = [0, *range(2, x.dim())]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    if training:
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    else:
        mean, variance = (t.view(shape) for t in statistics)
    invstd = (variance + eps).rsqrt()
    normal = (x - mean) * invstd
    grad_weight, grad_bias = (grad_output * normal).sum(axes), grad_output.sum(axes)
    g = grad_output if weight is None else grad_output * weight.view(shape)
    if training:
        g = g - g.mean(axes, keepdim=True) - normal * (g * normal).mean(axes, keepdim=True)
    return g * invstd, grad_weight if weight is not None else None, grad_bias
