"""Convolution and transposed convolution of any rank: running the three passes, and their autograd.

The three passes of one convolution are bilinear and each other's derivatives, so one autograd function serves
forward, gradients, double backward and the transposed convolution (which is the grad_input pass)::

    pass         a            b            d/da            d/db
    forward      input        weight       grad_input      grad_weight
    grad_input   grad_output  weight       forward         grad_weight
    grad_weight  grad_output  input        forward         grad_input

The epilogue (+ bias, + residual, relu) belongs to the tensor computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format

from .. import registry, settings
from ..kernels import torch as vendor
from ..problem import ConvProblem, Layout, Sizes
from ._dispatch import (
    DTYPES,
    choose,
    context_key,
    holds_tensor,
    layout_of,
    plain,
    remember,
    require_memory,
    wants_torch,
    watched,
)
from ._library import define
from ._workspace import ALIGNMENT, workspace
from .channel_sum import channel_sum
from .conv_arguments import (
    Geometry,
    forward_geometry,
    require_activation,
    require_residual,
    require_tensor,
    transposed_geometry,
)
from .relu import relu_grad_input

_calls: dict[tuple, _Call] = {}

_TORCH = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TORCH_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


# ------------------------------------------------------------------------------------------- entry points


def conv(rank, input, weight, bias, stride, padding, dilation, groups, residual=None, activation=None, prepared=None):
    """See :func:`pycv.functional.conv2d`; ``prepared`` is the layer's store of prepared weights, if it has one."""
    arguments = (stride, padding, dilation, groups, activation)
    if residual is not None:
        require_tensor(residual)
    if watched():
        return _watched_conv(rank, input, weight, bias, *arguments, residual)
    kept = prepared is not None
    key = _key(rank, False, kept, input, weight, bias, residual, arguments)
    call = _calls.get(key) if key is not None else None
    if call is None:
        if isinstance(input, Tensor) and input.dim() == rank + 1:
            batched = None if residual is None else residual.unsqueeze(0)
            operands = (input.unsqueeze(0), weight, bias)
            return conv(rank, *operands, stride, padding, dilation, groups, batched, activation, prepared).squeeze(0)
        if _foreign(input, weight, bias, residual):
            return _watched_conv(rank, input, weight, bias, *arguments, residual)
        relu = require_activation(activation)
        geometry = forward_geometry(rank, input, weight, bias, stride, padding, dilation, groups)
        require_residual(residual, (input.shape[0], weight.shape[0], *geometry.output_size), input)
        call = _Call("forward", geometry, relu, input, weight, bias, residual, settings.current(), kept)
        if input.is_complex():
            with registry.timed(call.choice):
                return _epilogue(_TORCH[rank](input, weight, bias, *arguments[:-1]), residual, relu)
        _remember(key, arguments, call)
    try:
        return call.apply(input, weight, bias, residual, prepared)
    except RuntimeError:
        if not _foreign(input, weight, bias, residual):
            raise
        return _watched_conv(rank, input, weight, bias, *arguments, residual)  # no memory after all


def conv_transpose(
    rank, input, weight, bias, stride, padding, output_padding, groups, dilation, residual=None, activation=None,
    prepared=None,
):  # fmt: skip
    """See :func:`pycv.functional.conv_transpose2d`."""
    arguments = (stride, padding, output_padding, groups, dilation, activation)
    if residual is not None:
        require_tensor(residual)
    if watched():
        return _watched_conv_transpose(rank, input, weight, bias, *arguments, residual)
    kept = prepared is not None
    key = _key(rank, True, kept, input, weight, bias, residual, arguments)
    call = _calls.get(key) if key is not None else None
    if call is None:
        if isinstance(input, Tensor) and input.dim() == rank + 1:
            batched = None if residual is None else residual.unsqueeze(0)
            windows = (stride, padding, output_padding, groups, dilation, batched, activation, prepared)
            return conv_transpose(rank, input.unsqueeze(0), weight, bias, *windows).squeeze(0)
        if _foreign(input, weight, bias, residual):
            return _watched_conv_transpose(rank, input, weight, bias, *arguments, residual)
        relu = require_activation(activation)
        windows = (stride, padding, output_padding, groups, dilation)
        geometry = transposed_geometry(rank, input, weight, bias, *windows)
        require_residual(residual, (input.shape[0], weight.shape[1] * groups, *geometry.size), input)
        call = _Call("grad_input", geometry, relu, input, weight, bias, residual, settings.current(), kept)
        if input.is_complex():
            with registry.timed(call.choice):
                return _epilogue(_TORCH_TRANSPOSED[rank](input, weight, bias, *windows), residual, relu)
        _remember(key, arguments, call)
    try:
        return call.apply(input, weight, bias, residual, prepared)
    except RuntimeError:
        if not _foreign(input, weight, bias, residual):
            raise
        return _watched_conv_transpose(rank, input, weight, bias, *arguments, residual)  # no memory after all


def _key(rank, transposed, kept, input, weight, bias, residual, arguments) -> tuple | None:
    """What a call depends on; None for arguments that cannot be a key (lists, no tensors), which take the long way.

    The lazy negation and the layout stand in it so that a key that is known means plain memory, but for wrappers of
    transforms and batches of the older vmap: those show where their memory is asked for, which costs others nothing.
    """
    try:
        key = (
            rank, transposed, kept, arguments,
            type(input), input.shape, input.stride(), input.dtype, input.device, input.is_neg(),
            input.layout,
            type(weight), weight.shape, weight.stride(), weight.dtype, weight.device, weight.is_neg(),
            weight.layout,
            None if bias is None else (
                type(bias), bias.shape, bias.stride(), bias.dtype, bias.device, bias.is_neg()
            ),
            None if residual is None else (
                type(residual), residual.shape, residual.stride(), residual.dtype, residual.device,
                residual.is_neg(),
            ),
            *context_key(settings.current()),
        )  # fmt: skip
        hash(arguments)
    except (AttributeError, TypeError, RuntimeError):
        return None
    return key


def _remember(key: tuple | None, arguments: tuple, call: _Call) -> None:
    if key is not None and not holds_tensor(arguments):
        remember(_calls, key, call)


def _foreign(*operands) -> bool:
    """Not all plain strided tensors."""
    return any(isinstance(t, Tensor) and not plain(t) for t in operands)


# -------------------------------------------------------------------------------------------- watched path


def _watched_conv(rank, input, weight, bias, stride, padding, dilation, groups, activation, residual):
    """Somebody watches: torch's own op, or pycv's library op for compilers and dispatch modes."""
    relu = require_activation(activation)
    if _prefers_torch(input, weight, bias, residual):
        out = _TORCH[rank](input, weight, bias, stride, padding, dilation, groups)
        return _epilogue(out, residual, relu)
    if input.dim() == rank + 1:
        batched = None if residual is None else residual.unsqueeze(0)
        arguments = (stride, padding, dilation, groups, activation, batched)
        return _watched_conv(rank, input.unsqueeze(0), weight, bias, *arguments).squeeze(0)
    if _autocasts(input):
        with torch.autocast(input.device.type, enabled=False):
            input, weight, bias, residual = _autocast_operands(input, weight, bias, residual)
            return conv(rank, input, weight, bias, stride, padding, dilation, groups, residual, activation)
    geometry = forward_geometry(rank, input, weight, bias, stride, padding, dilation, groups)
    require_residual(residual, (input.shape[0], weight.shape[0], *geometry.output_size), input)
    return _library("forward", geometry, relu, input, weight, bias, residual, settings.current_text())


def _watched_conv_transpose(
    rank, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, residual
):
    relu = require_activation(activation)
    if _prefers_torch(input, weight, bias, residual):
        out = _TORCH_TRANSPOSED[rank](input, weight, bias, stride, padding, output_padding, groups, dilation)
        return _epilogue(out, residual, relu)
    windows = (stride, padding, output_padding, groups, dilation)
    if input.dim() == rank + 1:
        batched = None if residual is None else residual.unsqueeze(0)
        arguments = (input.unsqueeze(0), weight, bias, *windows, activation, batched)
        return _watched_conv_transpose(rank, *arguments).squeeze(0)
    if _autocasts(input):
        with torch.autocast(input.device.type, enabled=False):
            input, weight, bias, residual = _autocast_operands(input, weight, bias, residual)
            return conv_transpose(rank, input, weight, bias, *windows, residual, activation)
    geometry = transposed_geometry(rank, input, weight, bias, *windows)
    require_residual(residual, (input.shape[0], weight.shape[1] * groups, *geometry.size), input)
    return _library("grad_input", geometry, relu, input, weight, bias, residual, settings.current_text())


def _prefers_torch(*operands: Tensor | None) -> bool:
    """Who watches is better served by torch's op, or an operand is one that only torch's whole op knows.

    Those are complex ones, whose passes aten does not have one by one, and types that no dispatch mode explains.
    """
    if any(isinstance(t, Tensor) and t.is_complex() for t in operands):
        return True
    if wants_torch() or torch.compiler.is_compiling():
        return wants_torch()
    return _foreign(*operands) and not torch._C._len_torch_dispatch_stack()


def _autocasts(input: Tensor) -> bool:
    return torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled(input.device.type)


def _autocast_operands(input: Tensor, *others: Tensor | None) -> list[Any]:
    """What autocast does to a convolution's operands: every floating tensor but double to its dtype."""
    dtype = torch.get_autocast_dtype(input.device.type)
    return [
        t.to(dtype) if t is not None and t.is_floating_point() and t.dtype != torch.float64 else t
        for t in (input, *others)
    ]


def _epilogue(out: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    if residual is not None:
        out = out + residual
    return F.relu(out) if relu else out


# ----------------------------------------------------------------------------------------------- autograd


class _Convolution(torch.autograd.Function):
    """The direct path's: ``call`` knows the pass, the kernel and the settings."""

    @staticmethod
    def forward(ctx, call, a, b, bias, residual):
        out = call.run(a, b, bias, residual, None)
        ctx.save_for_backward(a, b, out if call.relu else None)
        ctx.call = call
        return out

    @staticmethod
    def backward(ctx, grad):
        call = ctx.call
        with settings.applied(call.settings):
            return None, *_gradients(ctx, ctx.needs_input_grad[1:], call.pass_, call.derivative, grad)


_apply_convolution = super(torch.autograd.Function, _Convolution).apply  # without its Python part, for functorch


def _gradients(ctx, needs, pass_: str, derivative, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of a, b, bias and residual where ``needs`` says so.

    ``derivative(pass_, a, b)`` runs another pass of the same geometry.
    """
    a, b, out = ctx.saved_tensors
    if out is not None:
        grad = relu_grad_input(out, grad)
    need_a, need_b, need_bias, need_residual = needs
    grad_a = grad_b = None
    if pass_ == "forward":
        grad_a = derivative("grad_input", grad, b) if need_a else None
        grad_b = derivative("grad_weight", grad, a) if need_b else None
    elif pass_ == "grad_input":
        grad_a = derivative("forward", grad, b) if need_a else None
        grad_b = derivative("grad_weight", a, grad) if need_b else None
    else:
        grad_a = derivative("forward", b, grad) if need_a else None
        grad_b = derivative("grad_input", a, grad) if need_b else None
    return grad_a, grad_b, channel_sum(grad) if need_bias else None, grad if need_residual else None


# ---------------------------------------------------------------------------------------------- execution


def _computed_shape(pass_: str, geometry: Geometry, a: Tensor, b: Tensor) -> Sizes:
    if pass_ == "forward":
        return (a.shape[0], b.shape[0], *geometry.output_size)
    if pass_ == "grad_input":
        return (a.shape[0], b.shape[1] * geometry.groups, *geometry.size)
    return (a.shape[1], b.shape[1] // geometry.groups, *geometry.filter)


def _channels_last(a: Tensor, b: Tensor) -> bool:
    """torch's rule: the result is channels_last if either operand is. There is no such format of rank 1."""
    if a.dim() == 3:
        return False
    wanted = torch.channels_last if a.dim() == 4 else torch.channels_last_3d
    return wanted in (suggest_memory_format(a), suggest_memory_format(b))


class _Call:
    """All that follows from shapes, strides and settings: the kernel, what to allocate, what must be copied.

    ``kept``: the layer keeps the prepared weight.
    """

    def __init__(self, pass_, geometry, relu, a, b, bias, residual, current, kept=False):
        self.pass_, self.geometry, self.relu, self.settings = pass_, geometry, relu, current
        self.derivatives: dict[tuple, _Call] = {}
        self.shape = _computed_shape(pass_, geometry, a, b)
        require_memory(self.shape)
        layout = Layout("nhwc" if _channels_last(a, b) else "nchw")
        self.strides = layout.strides(self.shape[1], self.shape[2:])
        a_layout, b_layout = layout_of(a), layout_of(b)
        residual_layout = layout_of(residual) if residual is not None else None
        self.copy_a, self.copy_b = a_layout is None, b_layout is None
        self.copy_residual = residual is not None and residual_layout is None
        self.copy_bias = bias is not None and bias.stride() != (1,)
        dense = Layout()
        operands = self._by_role(a_layout or dense, b_layout or dense, layout)
        epilogue = [("bias", bias is not None), ("residual", residual is not None), ("relu", relu)]
        c, k = self._channels(a, b)
        problem = ConvProblem(
            f"conv{geometry.rank}d", pass_,
            n=a.shape[0], c=c, size=geometry.size, k=k, filter=geometry.filter, output_size=geometry.output_size,
            stride=geometry.stride, padding=geometry.padding, dilation=geometry.dilation, groups=geometry.groups,
            dtype=DTYPES.get(a.dtype, str(a.dtype)), device=a.device.type,
            **operands, residual=(residual_layout or dense) if residual is not None else None,
            epilogue=tuple(name for name, present in epilogue if present),
        )  # fmt: skip
        self.choice = choose(a.device, problem, current, kept)
        plan = self.choice.plan
        if plan is not None:
            self.prepared_bytes = plan.prepared_weight_bytes
            self.workspace_offset = -(-self.prepared_bytes // ALIGNMENT) * ALIGNMENT
            self.workspace_bytes = plan.workspace_bytes
            self.launch = plan.launch
            self.launch_plain = plan.launch_plain if getattr(plan, "takes_plain_weight", False) else None

    def _channels(self, a: Tensor, b: Tensor) -> tuple[int, int]:
        """Input and output channels of the convolution."""
        if self.pass_ == "forward":
            return a.shape[1], b.shape[0]
        if self.pass_ == "grad_input":
            return b.shape[1] * self.geometry.groups, b.shape[0]
        return b.shape[1], a.shape[1]

    def _by_role(self, a, b, computed) -> dict[str, Any]:
        """a, b and the computed tensor by their names in the problem."""
        if self.pass_ == "forward":
            return {"input": a, "weight": b, "output": computed}
        if self.pass_ == "grad_input":
            return {"output": a, "weight": b, "input": computed}
        return {"output": a, "input": b, "weight": computed}

    def apply(self, a: Tensor, b: Tensor, bias=None, residual=None, prepared=None) -> Tensor:
        """Runs it, differentiably where a gradient is asked for."""
        if torch.is_grad_enabled() and (
            a.requires_grad
            or b.requires_grad
            or (bias is not None and bias.requires_grad)
            or (residual is not None and residual.requires_grad)
        ):
            return _apply_convolution(self, a, b, bias, residual)
        return self.run(a, b, bias, residual, prepared)

    def derivative(self, pass_: str, a: Tensor, b: Tensor) -> Tensor:
        """Another pass of the same geometry under the same settings."""
        if watched() or _foreign(a, b):
            return _library(pass_, self.geometry, False, a, b, None, None, self.settings.text())
        key = (pass_, a.stride(), b.stride(), *context_key(self.settings))
        call = self.derivatives.get(key)
        if call is None:
            call = _Call(pass_, self.geometry, False, a, b, None, None, self.settings)
            remember(self.derivatives, key, call)
        return call.apply(a, b)

    def run(self, a: Tensor, b: Tensor, bias: Tensor | None, residual: Tensor | None, prepared) -> Tensor:
        if registry.recorders:
            with registry.timed(self.choice):
                return self._run(a, b, bias, residual, prepared)
        return self._run(a, b, bias, residual, prepared)

    def _run(self, a, b, bias, residual, prepared) -> Tensor:
        if self.choice.plan is None:
            return self._run_torch(a, b, bias, residual)
        if self.copy_a:
            a = a.contiguous()
        if self.copy_b:
            b, prepared = b.contiguous(), None
        if self.copy_bias:
            bias = bias.contiguous()
        if self.copy_residual:
            residual = residual.contiguous()
        out = a.new_empty_strided(self.shape, self.strides)
        launch, b_pointer, workspace, _alive = self._weight_and_workspace(b, prepared)
        bias_pointer = 0 if bias is None else bias.data_ptr()
        residual_pointer = 0 if residual is None else residual.data_ptr()
        if self.pass_ == "forward":
            launch(a.data_ptr(), b_pointer, out.data_ptr(), bias_pointer, residual_pointer, workspace)
        elif self.pass_ == "grad_input":
            launch(out.data_ptr(), b_pointer, a.data_ptr(), bias_pointer, residual_pointer, workspace)
        else:
            launch(b_pointer, out.data_ptr(), a.data_ptr(), 0, 0, workspace)
        return out

    def _weight_and_workspace(self, b: Tensor, prepared) -> tuple[Callable, int, int, object]:
        """How to run the plan, pointers to the (prepared) weight and to workspace, and what keeps them alive.

        One buffer holds both, unless the layer keeps the prepared weight or the plan prefers the plain one.
        """
        if not self.prepared_bytes and not self.workspace_bytes:
            return self.launch, b.data_ptr(), 0, None
        kept = prepared.get(b, self.choice) if prepared is not None and self.prepared_bytes else None
        if kept is not None:
            memory, start = workspace(self.workspace_bytes, b)
            return self.launch, kept.data_ptr(), start, (kept, memory)
        if self.launch_plain is not None:
            memory, start = workspace(self.workspace_bytes, b)
            return self.launch_plain, b.data_ptr(), start, memory
        memory, start = workspace(self.workspace_offset + self.workspace_bytes, b)
        if not self.prepared_bytes:
            return self.launch, b.data_ptr(), start, memory
        self.choice.plan.prepare_weight(b.data_ptr(), start)
        return self.launch, start, start + self.workspace_offset, memory

    def _run_torch(self, a, b, bias, residual) -> Tensor:
        inside = self.pass_ == "forward"  # torch adds the bias as it goes
        out = _torch_pass(self.pass_, self.geometry, a, b, bias if inside else None)
        if bias is not None and not inside:
            out = out + bias.view(-1, *[1] * self.geometry.rank)
        return _epilogue(out, residual, self.relu)


def _torch_pass(pass_: str, g: Geometry, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    sizes = {name: getattr(g, name) for name in ("size", "filter", "stride", "padding", "right_padding", "dilation")}
    return vendor.conv_pass(pass_, a, b, bias, **sizes, groups=g.groups)


# -------------------------------------------------------------------------------------------- library op


def _library(pass_, geometry, relu, a, b, bias, residual, text) -> Tensor:
    return torch.ops.pycv.convolution(a, b, bias, residual, pass_, *geometry[1:], relu, text)


def _library_convolution(
    a, b, bias, residual, pass_, size, filter, output_size, stride, padding, dilation, groups, relu, settings_text
):
    sizes = (size, filter, output_size, stride, padding, dilation)
    geometry = Geometry(len(size), *(tuple(v) for v in sizes), groups)
    current = settings.from_text(settings_text)
    key = (
        pass_, geometry, relu, a.shape[:2], a.stride(), b.shape, b.stride(), a.dtype, a.device,
        None if bias is None else bias.stride(), None if residual is None else residual.stride(),
        *context_key(current),
    )  # fmt: skip
    call = _calls.get(key)
    if call is None:
        call = remember(_calls, key, _Call(pass_, geometry, relu, a, b, bias, residual, current))
    out = call.run(a, b, bias, residual, None)
    # torch has rules of its own for how its results lie, and compiled code rests on what the fake says.
    return out if out.stride() == call.strides else out.new_empty_strided(call.shape, call.strides).copy_(out)


def _library_convolution_fake(
    a, b, bias, residual, pass_, size, filter, output_size, stride, padding, dilation, groups, relu, settings_text
):
    geometry = Geometry(len(size), size, filter, output_size, stride, padding, dilation, groups)
    shape = _computed_shape(pass_, geometry, a, b)
    layout = Layout("nhwc" if _channels_last(a, b) else "nchw")
    return a.new_empty_strided(shape, layout.strides(shape[1], shape[2:]))


def _library_setup_context(ctx, inputs, output) -> None:
    a, b, _, _, ctx.pass_, *sizes, relu, ctx.text = inputs
    ctx.geometry = Geometry(a.dim() - 2, *sizes)
    ctx.save_for_backward(a, b, output if relu else None)


def _library_backward(ctx, grad: Tensor):
    def derivative(pass_, a, b):
        return _library(pass_, ctx.geometry, False, a, b, None, None, ctx.text)

    return *_gradients(ctx, ctx.needs_input_grad[:4], ctx.pass_, derivative, grad), *[None] * 10


def _library_convolution_flops(
    a, b, bias, residual, pass_, size, filter, output_size, stride, padding, dilation, groups, *_, **__
) -> int:
    """For torch's FlopCounterMode, from shapes: two per multiply-add of the direct algorithm, as torch counts."""
    weights = b[0] * math.prod(b[1:]) if pass_ != "grad_weight" else a[1] * b[1] // groups * math.prod(filter)
    return 2 * a[0] * math.prod(output_size) * weights


define(
    "convolution(Tensor a, Tensor b, Tensor? bias, Tensor? residual, str pass_, SymInt[] size, SymInt[] filter, "
    "SymInt[] output_size, SymInt[] stride, SymInt[] padding, SymInt[] dilation, int groups, bool relu, str settings) "
    "-> Tensor",
    _library_convolution,
    _library_convolution_fake,
    _library_convolution_flops,
    _library_setup_context,
    _library_backward,
)
