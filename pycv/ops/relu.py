"""relu: y = max(x, 0). Gradient: grad_output where y > 0 (NaN lets it through, as in torch), else 0.

What backward has to know of y is a bit per element. Where the kernels of both passes have a mask (those for CUDA),
forward keeps that, in place, too: of an fp32 element the graph holds and backward reads 0.125 bytes, not 4, and y may
change before backward comes. Elsewhere it keeps y. The kernels for the CPU have no mask: the next layer mostly keeps y
as its input and has just read it, for its own gradient, when backward comes; so at most the 4 of 12 bytes could be had,
where caches do not hold y, and every call would pay for a second tensor.

Under torch.compile, export, transforms and modes the layer is torch's own op: it fuses there. Autocast leaves relu
alone, and so do we.

On a small tensor the call is what costs, so what runs every time is kept short: one flat key made without a Python
call, ``Function.apply`` entered below its Python part (which serves functorch), no second lookup in backward. Tensors
that are no plain memory are told from others where they first fail (forward_any, the RuntimeError of data_ptr).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .. import registry, settings
from ..problem import PointwiseProblem
from ._dispatch import DTYPES, choose, current_gpu, observed, plain, remember, threads

_empty_like = torch.empty_like
_is_grad_enabled = torch.is_grad_enabled
_is_inference_mode = torch.is_inference_mode_enabled


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0) per element, as :func:`torch.nn.functional.relu`; NaN stays NaN.

    Any shape and dtype; the result keeps shape, dtype and memory format.
    """
    if observed():
        return _torch_relu(input, inplace)
    current = settings.current()
    try:
        key = (type(input), input.numel(), input.dtype, input.device, id(current), threads())
    except AttributeError:  # no tensor: torch says so
        return _torch_relu(input, inplace)
    call = _calls.get(key)
    if call is None:
        if not plain(input):
            return _torch_relu(input, inplace)
        call = remember(_calls, key, _Call(input, current))
    run = call.run
    try:
        if run is not None and input.requires_grad and _is_grad_enabled():
            if inplace and (input.is_leaf or input._is_view()):
                return _torch_relu(input, inplace)  # refuses many of these before it writes: we could only afterwards
            masked = call.masked
            if masked is not None and plain(input):
                return _apply_masked(input, inplace, masked)
            return _apply_relu(input, inplace, call)
        if inplace or run is None or registry.recorders or not input.is_contiguous() or input.is_neg():
            return call.forward_any(input, inplace)
        out = _empty_like(input)
        run(input.data_ptr(), 0, out.data_ptr())
        return out
    except RuntimeError:
        if plain(input):
            raise
        return _torch_relu(input, inplace)


def relu_grad_input(y: Tensor, grad_output: Tensor) -> Tensor:
    """grad_output where the relu's output y is not <= 0, else 0. Differentiable in grad_output."""
    if observed() or not plain(y):
        return _torch_relu_grad_input(y, grad_output)
    current = settings.current()
    key = (type(y), y.numel(), y.dtype, y.device, id(current), threads())
    call = _calls.get(key) or remember(_calls, key, _Call(y, current))
    return call.grad_input(y, grad_output)


def _torch_relu(x: Tensor, inplace: bool) -> Tensor:
    return torch.relu_(x) if inplace else torch.relu(x)


def _torch_relu_grad_input(y: Tensor, grad_output: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(grad_output, y, 0)


def _is_dense(x: Tensor) -> bool:
    """Its elements fill one block of memory, in whatever order of axes."""
    return x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(x)


def _dense(x: Tensor) -> Tensor:
    """x, or a copy that is dense, with the axes in the order of x."""
    return x if _is_dense(x) else _empty_like(x).copy_(x)


class _Call:
    """The kernels for tensors of one size and dtype under one setting, forward and (once asked for) backward.

    All relu kernels are deterministic, so that switch of torch is no part of the key.
    """

    def __init__(self, x: Tensor, current: settings.Settings):
        self._problem = (x.numel(), DTYPES.get(x.dtype, str(x.dtype)), x.device.type)
        self._settings, self._device = current, x.device
        self._choice = self._choose("forward")
        self.run: Any = self._choice.plan.launch if self._choice.plan is not None else None

    @cached_property
    def _grad_input_choice(self) -> registry.Choice:
        return self._choose("grad_input")

    def _choose(self, pass_: str) -> registry.Choice:
        return choose(self._device, self._problem_of(pass_), self._settings)

    def _problem_of(self, pass_: str, mask: bool = False) -> PointwiseProblem:
        return PointwiseProblem("relu", pass_, *self._problem, mask)

    @cached_property
    def masked(self) -> _Masked | None:
        """The same kernels with a mask; None where they have none."""
        if (forward := self._with_mask(self._choice)) is None:
            return None
        grad_input = self._with_mask(self._grad_input_choice)
        return (
            None if grad_input is None else _Masked(forward, grad_input, self._problem_of("forward", True).mask_bytes)
        )

    def _with_mask(self, choice: registry.Choice) -> registry.Choice | None:
        problem = self._problem_of(choice.problem.pass_, True)
        with current_gpu(self._device):
            return registry.same_kernel(choice, problem, self._settings, threads())

    def forward(self, x: Tensor, inplace: bool) -> Tensor:
        """What :func:`relu` does without a gradient, once more: there it stands in line, to save this very call."""
        if inplace or registry.recorders or not x.is_contiguous() or x.is_neg():
            return self.forward_any(x, inplace)
        out = _empty_like(x)
        self.run(x.data_ptr(), 0, out.data_ptr())
        return out

    def forward_any(self, x: Tensor, inplace: bool) -> Tensor:
        if not plain(x):
            return _torch_relu(x, inplace)
        if not registry.recorders:
            return self._run_forward(x, inplace)
        with registry.timed(self._choice):
            return self._run_forward(x, inplace)

    def _run_forward(self, x: Tensor, inplace: bool) -> Tensor:
        if self.run is None or (inplace and x.is_inference() and not _is_inference_mode()):
            return _torch_relu(x, inplace)
        if inplace and _is_dense(x):
            self.run(x.data_ptr(), 0, x.data_ptr())
            increment_version(x)
            return x
        source = _dense(x)
        out = _empty_like(source)
        self.run(source.data_ptr(), 0, out.data_ptr())
        return x.copy_(out) if inplace else out

    def grad_input(self, y: Tensor, grad_output: Tensor) -> Tensor:
        """Differentiable in grad_output."""
        if self._grad_input_choice.plan is None or observed() or not plain(grad_output):
            return _torch_relu_grad_input(y, grad_output)
        if grad_output.requires_grad and torch.is_grad_enabled():
            return _apply_relu_grad_input(y, grad_output, self)
        return self.run_grad_input(y, grad_output)

    def run_grad_input(self, y: Tensor, grad_output: Tensor) -> Tensor:
        if not registry.recorders:
            return self._run_grad_input(y, grad_output)
        with registry.timed(self._grad_input_choice):
            return self._run_grad_input(y, grad_output)

    def _run_grad_input(self, y: Tensor, grad_output: Tensor) -> Tensor:
        if not _is_dense(y):
            y = y.contiguous()
        if grad_output.stride() != y.stride():
            grad_output = _empty_like(y).copy_(grad_output)
        grad_input = _empty_like(y)
        self._grad_input_choice.plan.launch(y.data_ptr(), grad_output.data_ptr(), grad_input.data_ptr())
        return grad_input


class _Masked:
    """The kernels of a :class:`_Call` that write a mask forward and read it backward."""

    def __init__(self, forward: registry.Choice, grad_input: registry.Choice, size: int):
        self._forward, self._grad_input = forward, grad_input
        self._bytes = size

    def forward(self, x: Tensor, inplace: bool) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """The result, the mask, and the strides of the dense memory in whose order the bits of the mask are."""
        if not registry.recorders:
            return self._run_forward(x, inplace)
        with registry.timed(self._forward):
            return self._run_forward(x, inplace)

    def _run_forward(self, x: Tensor, inplace: bool) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        source = _dense(x)
        out = x if inplace and source is x else _empty_like(source)
        mask = torch.empty(self._bytes, dtype=torch.uint8, device=x.device)
        self._forward.plan.launch_masked(source.data_ptr(), 0, out.data_ptr(), mask.data_ptr())
        if out is x:
            increment_version(x)
        return x.copy_(out) if inplace and out is not x else out, mask, out.stride()

    def grad_input(self, mask: Tensor, strides: tuple[int, ...], grad_output: Tensor) -> Tensor:
        """``strides`` are those of the memory that the mask describes. Differentiable in grad_output."""
        if observed() or not plain(grad_output):
            return torch.where(_bits(mask, strides, grad_output), grad_output, 0)
        if grad_output.requires_grad and torch.is_grad_enabled():
            return _apply_masked_grad_input(mask, strides, grad_output, self)
        return self.run_grad_input(mask, strides, grad_output)

    def run_grad_input(self, mask: Tensor, strides: tuple[int, ...], grad_output: Tensor) -> Tensor:
        if not registry.recorders:
            return self._run_grad_input(mask, strides, grad_output)
        with registry.timed(self._grad_input):
            return self._run_grad_input(mask, strides, grad_output)

    def _run_grad_input(self, mask: Tensor, strides: tuple[int, ...], grad_output: Tensor) -> Tensor:
        grad_input = torch.empty_strided(grad_output.shape, strides, dtype=grad_output.dtype, device=grad_output.device)
        if grad_output.stride() != strides:
            grad_output = _empty_like(grad_input).copy_(grad_output)
        self._grad_input.plan.launch_masked(0, grad_output.data_ptr(), grad_input.data_ptr(), mask.data_ptr())
        return grad_input


def _bits(mask: Tensor, strides: tuple[int, ...], like: Tensor) -> Tensor:
    """The mask of torch's operations: true where the gradient passes, with the shape of ``like``."""
    places = torch.arange(8, dtype=torch.uint8, device=mask.device)
    return (mask.unsqueeze(1) >> places & 1).bool().flatten().as_strided(like.shape, strides)


_calls: dict[tuple, _Call] = {}


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, inplace, call):
        y = call.forward(x, inplace)
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        ctx.call = call
        return y

    @staticmethod
    def backward(ctx, grad_output):
        (y,) = ctx.saved_tensors
        return ctx.call.grad_input(y, grad_output), None, None


class _MaskedRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, inplace, masked):
        y, mask, strides = masked.forward(x, inplace)
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(mask)
        ctx.masked, ctx.strides = masked, strides
        return y

    @staticmethod
    def backward(ctx, grad_output):
        (mask,) = ctx.saved_tensors
        return ctx.masked.grad_input(mask, ctx.strides, grad_output), None, None


class _ReluGradInput(torch.autograd.Function):
    """Linear in grad_output, constant almost everywhere in y: its own double backward is itself."""

    @staticmethod
    def forward(ctx, y, grad_output, call):
        ctx.save_for_backward(y)
        ctx.call = call
        return call.run_grad_input(y, grad_output)

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return None, ctx.call.grad_input(y, grad), None


class _MaskedReluGradInput(torch.autograd.Function):
    """Linear in grad_output: its own double backward is itself."""

    @staticmethod
    def forward(ctx, mask, strides, grad_output, masked):
        ctx.save_for_backward(mask)
        ctx.masked, ctx.strides = masked, strides
        return masked.run_grad_input(mask, strides, grad_output)

    @staticmethod
    def backward(ctx, grad):
        (mask,) = ctx.saved_tensors
        return None, None, ctx.masked.grad_input(mask, ctx.strides, grad), None


_apply_relu = super(torch.autograd.Function, _Relu).apply
_apply_masked = super(torch.autograd.Function, _MaskedRelu).apply
_apply_masked_grad_input = super(torch.autograd.Function, _MaskedReluGradInput).apply
_apply_relu_grad_input = super(torch.autograd.Function, _ReluGradInput).apply
