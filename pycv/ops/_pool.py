"""What all poolings share: arguments, their validation, output sizes, and one kernel run forward and back.

A pooling is described by a :class:`Spec`. ``prepare`` validates it against an input (only when the pair is new) and
answers with a :class:`Prepared`: the kernel chosen and how the output is to be allocated. ``recall`` finds it by the
arguments as they were given, before any of this: on a small tensor the call is what costs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch._prims_common import suggest_memory_format

from .. import registry, settings
from ..problem import Layout, PoolProblem, Sizes, has_offsets
from ._dispatch import (
    DTYPES,
    choose,
    context_key,
    holds_tensor,
    is_batched,
    is_functorch_wrapper,
    remember,
    require_64_bits,
    require_memory,
)


class Spec(NamedTuple):
    """A pooling without its input. ``filter`` is () for the adaptive ones, ``output_size`` for the others."""

    op: str
    rank: int
    filter: Sizes = ()
    stride: Sizes = ()
    padding: Sizes = ()
    dilation: Sizes = ()
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor: int | None = None
    output_size: tuple[int | None, ...] = ()


class Prepared:
    """A pooling of inputs of one shape, strides and dtype: the forward kernel, and what it writes."""

    __slots__ = (
        "channels_last", "choice", "copy_input", "index_dtype", "indices", "input_shape", "launch", "out_shape",
        "out_strides", "spec",
    )  # fmt: skip

    def __init__(
        self, spec: Spec, choice: registry.Choice, indices: str, input_shape, out_shape, channels_last, copy_input
    ):
        self.spec = spec
        self.choice = choice
        self.launch = choice.plan.launch if choice.plan is not None else None
        self.indices = indices
        self.index_dtype = torch.uint8 if indices == "offset" else torch.int64
        self.input_shape = input_shape
        self.out_shape = out_shape
        self.out_strides = _strides(out_shape, spec.rank, channels_last)
        self.channels_last = channels_last
        self.copy_input = copy_input


_calls: dict[tuple, Prepared] = {}  # by the arguments of a call
_forward: dict[tuple, Prepared] = {}  # by its spec
_grad_input: dict[tuple, registry.Choice] = {}


# ------------------------------------------------------------------------------------------------ arguments


def per_axis(op: str, name: str, value, rank: int) -> Sizes:
    """An int, or one int or ``rank`` ints in a sequence, as ``rank`` ints."""
    if type(value) is int:
        require_64_bits(op, name, value, value)
        return (value,) * rank
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if len(values) not in (1, rank):
        raise RuntimeError(f"{op}: {name} must be an int or a tuple of {rank} ints, but got {value!r}")
    try:
        values = tuple(v if type(v) is int else operator.index(v) for v in values)
    except TypeError:
        raise TypeError(f"{op}(): argument '{name}' must be int or tuple of ints, not {value!r}") from None
    require_64_bits(op, name, value, *values)
    return values * rank if len(values) == 1 else values


def window_spec(
    op, rank, kernel_size, stride, padding, dilation, ceil_mode, count_include_pad=True, divisor=None
) -> Spec:
    """The spec of a pooling with a fixed window; ``stride`` None or empty is the kernel size."""
    name = f"{op}{rank}d"
    filter = per_axis(name, "kernel_size", kernel_size, rank)
    no_stride = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    return Spec(
        name,
        rank,
        filter,
        filter if no_stride else per_axis(name, "stride", stride, rank),
        per_axis(name, "padding", padding, rank),
        per_axis(name, "dilation", dilation, rank),
        bool(ceil_mode),
        bool(count_include_pad),
        divisor,
    )


def adaptive_spec(op: str, rank: int, output_size, x: torch.Tensor) -> Spec:
    """The spec of an adaptive pooling; None in ``output_size`` keeps that axis' size."""
    name = f"{op}{rank}d"
    if isinstance(output_size, (tuple, list)):
        sizes = tuple(output_size)
        require_axes(op, rank, output_size, x)
        if len(sizes) not in ((1,) if rank == 1 else (1, rank)):
            raise RuntimeError(f"{name}: output_size must be {rank} ints, but got {output_size!r}")
    else:
        sizes = (output_size,)
    if len(sizes) == 1:
        sizes *= rank
    try:
        sizes = tuple(v if v is None or type(v) is int else operator.index(v) for v in sizes)
    except TypeError:
        raise TypeError(f"{name}(): argument 'output_size' must be int or tuple of ints, not {output_size!r}") from None
    require_64_bits(name, "output_size", output_size, *(v for v in sizes if v is not None))
    return Spec(name, rank, output_size=sizes)


def require_axes(op: str, rank: int, output_size, x: torch.Tensor) -> None:
    """Raises ValueError, as torch does, for an input that has no more axes than several output sizes are given."""
    if rank > 1 and isinstance(output_size, (tuple, list)) and x.dim() <= len(output_size):
        raise ValueError(
            f"{op}{rank}d: Input dimension should be at least {len(output_size) + 1}, but got input of shape "
            f"{tuple(x.shape)}"
        )


def output_size_of(spec: Spec, size: Sizes) -> Sizes:
    """Output extents; with ceil_mode the last window may hang over the end, but never starts in the right padding."""
    if not spec.filter:
        return tuple(i if o is None else o for i, o in zip(size, spec.output_size, strict=True))
    sizes = []
    for i, k, s, p, d in zip(size, spec.filter, spec.stride, spec.padding, spec.dilation, strict=True):
        out = (i + 2 * p - d * (k - 1) - 1 + (s - 1 if spec.ceil_mode else 0)) // s + 1
        if spec.ceil_mode and (out - 1) * s >= i + p:
            out -= 1
        sizes.append(out)
    return tuple(sizes)


def _check(spec: Spec, x: torch.Tensor) -> None:
    """Raises RuntimeError, as torch does, naming the argument at fault and its value."""
    op, rank = spec.op, spec.rank
    shape = tuple(x.shape)
    if x.dim() not in (rank + 1, rank + 2):
        raise RuntimeError(f"{op}: Expected {rank + 1}D or {rank + 2}D (batch mode) tensor for input, but got {shape}")
    if not spec.filter:
        if any(v is not None and v < 0 for v in spec.output_size):
            raise RuntimeError(
                f"{op}: elements of output_size must be greater than or equal to 0, but got {spec.output_size}"
            )
        needed = shape[-rank:] if "avg" in op else shape[1:]
        if 0 in needed:
            raise RuntimeError(f"{op}: Expected input to have non-zero size for non-batch dimensions, but got {shape}")
        return
    for name, values in (("kernel_size", spec.filter), ("stride", spec.stride), ("dilation", spec.dilation)):
        if min(values) <= 0:
            raise RuntimeError(f"{op}: {name} must be greater than zero, but got {values}")
    if spec.divisor == 0:
        raise RuntimeError(f"{op}: divisor must be not zero, but got divisor_override=0")
    for k, p, d in zip(spec.filter, spec.padding, spec.dilation, strict=True):
        if p < 0:
            raise RuntimeError(f"{op}: pad must be non-negative, but got padding={spec.padding}")
        if p >= 2**61:
            raise RuntimeError(f"{op}: pad is too large to be added to the input's size: padding={spec.padding}")
        if p > (d * (k - 1) + 1) // 2:
            raise RuntimeError(
                f"{op}: pad should be at most half of effective kernel size, but got padding={spec.padding}, "
                f"kernel_size={spec.filter} and dilation={spec.dilation}"
            )
    if 0 in shape[x.dim() - rank - 1 :]:
        raise RuntimeError(
            f"{op}: Expected {rank + 1}D or {rank + 2}D (batch mode) tensor with optional 0 dim batch size for input "
            f"and non-zero other sizes, but got {shape}"
        )
    out = output_size_of(spec, shape[-rank:])
    if min(out) < 1:
        raise RuntimeError(
            f"{op}: Given input size {shape[-rank:]} and kernel_size {spec.filter}, calculated output size {out}. "
            "Output size is too small"
        )


# ------------------------------------------------------------------------------------------------ layouts


def _keeps_channels_last(spec: Spec, x: torch.Tensor) -> bool:
    """torch's rule: 2d poolings and max_pool3d keep channels_last; the other 3d ones always answer contiguous."""
    if spec.rank == 2:
        return x.dim() == 4 and suggest_memory_format(x) is torch.channels_last
    if spec.op != "max_pool3d":
        return False
    batched = x if x.dim() == 5 else x.unsqueeze(0)
    return suggest_memory_format(batched) is torch.channels_last_3d


def _strides(shape: Sizes, rank: int, channels_last: bool) -> Sizes:
    """Strides of a dense tensor of this shape, batched or not."""
    layout = Layout("nhwc" if channels_last else "nchw")
    c, *size = shape[-rank - 1 :]
    strides = layout.strides(c, tuple(size))
    return strides if len(shape) == rank + 2 else strides[1:]


def _layout(shape: Sizes, strides: Sizes, rank: int) -> Layout | None:
    if len(shape) == rank + 1:
        shape, strides = (1, *shape), (0, *strides)
    return Layout.of(tuple(shape), tuple(strides))


def _problem(spec: Spec, pass_: str, shape: Sizes, input: Layout, output: Layout, x: torch.Tensor, indices: str):
    n, c, *size = shape if len(shape) == spec.rank + 2 else (1, *shape)
    return PoolProblem(
        spec.op, pass_, n, c, tuple(size), output_size_of(spec, tuple(size)),
        spec.filter, spec.stride, spec.padding, spec.dilation,
        DTYPES.get(x.dtype, str(x.dtype)), x.device.type, input, output,
        indices, spec.count_include_pad, spec.divisor or 0,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ running


def recall(arguments: tuple, x: torch.Tensor, indices: str = "") -> tuple[tuple | None, Prepared | None]:
    """What :func:`memorize` kept for such a call, and the key for it; None for arguments that cannot be a key (lists).

    A key that is known means plain memory: whatever tells it from other memory is part of the key.
    """
    try:
        key = (
            arguments, indices, type(x), x.shape, x.stride(), x.dtype, x.device, x.layout, x.is_neg(),
            is_functorch_wrapper(x), is_batched(x), *context_key(settings.current()),
        )  # fmt: skip
        return key, _calls.get(key)
    except (AttributeError, TypeError, RuntimeError):
        return None, None


def memorize(key: tuple | None, prepared: Prepared) -> Prepared:
    return prepared if key is None or holds_tensor(key[0]) else remember(_calls, key, prepared)


def prepare(spec: Spec, x: torch.Tensor, indices: str = "") -> Prepared:
    """The kernel for this pooling of this input; validates it when it is new. ``indices`` as the problem has them, but
    "offset" is a wish: where there are none it is int64."""
    current = settings.current()
    key = (spec, indices, x.shape, x.stride(), x.dtype, x.device, context_key(current))
    prepared = _forward.get(key)
    if prepared is None:
        _check(spec, x)
        shape = tuple(x.shape)
        out_shape = shape[: -spec.rank] + output_size_of(spec, shape[-spec.rank :])
        require_memory(out_shape)
        channels_last = _keeps_channels_last(spec, x)
        layout = _layout(shape, x.stride(), spec.rank)
        copy_input = layout is None or (layout.name == "nhwc" and not channels_last)
        if layout is None or copy_input:
            layout = _dense_layout(shape, spec.rank, channels_last)
        output = _dense_layout(out_shape, spec.rank, channels_last)
        if indices == "offset" and not has_offsets(shape[-spec.rank :], spec.filter, spec.padding, spec.dilation):
            indices = "int64"
        problem = _problem(spec, "forward", shape, layout, output, x, indices)
        choice = choose(x.device, problem, current)
        prepared = Prepared(spec, choice, indices, shape, out_shape, channels_last, copy_input)
        remember(_forward, key, prepared)
    return prepared


def _dense_layout(shape: Sizes, rank: int, channels_last: bool) -> Layout:
    return _layout(shape, _strides(shape, rank, channels_last), rank) or Layout()


def grad_input_choice(prepared: Prepared, grad_output: torch.Tensor) -> registry.Choice:
    """The kernel for the gradient: grad_output and grad_input dense, in the forward output's memory format; the indices
    are those that the forward wrote."""
    current = settings.current()
    key = (prepared.spec, prepared.indices, prepared.input_shape, prepared.channels_last, grad_output.dtype,
           grad_output.device, context_key(current))  # fmt: skip
    choice = _grad_input.get(key)
    if choice is None:
        spec = prepared.spec
        input = _dense_layout(prepared.input_shape, spec.rank, prepared.channels_last)
        output = _dense_layout(prepared.out_shape, spec.rank, prepared.channels_last)
        problem = _problem(spec, "grad_input", prepared.input_shape, input, output, grad_output, prepared.indices)
        choice = remember(_grad_input, key, choose(grad_output.device, problem, current))
    return choice


def run_torch(choice: registry.Choice, function: Callable[..., Any], *arguments: Any) -> Any:
    """What torch's ops make of it, where torch was chosen."""
    if not registry.recorders:
        return function(*arguments)
    with registry.timed(choice):
        return function(*arguments)


def run_forward(prepared: Prepared, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The pooled tensor, and the indices if asked for. The choice has a plan."""
    if not registry.recorders:
        return _run_forward(prepared, x)
    with registry.timed(prepared.choice):
        return _run_forward(prepared, x)


def _run_forward(prepared, x):
    if prepared.copy_input:
        dense = x.new_empty_strided(x.shape, _strides(x.shape, prepared.spec.rank, prepared.channels_last))
        x = dense.copy_(x)
    out = x.new_empty_strided(prepared.out_shape, prepared.out_strides)
    if not prepared.indices:
        prepared.launch(x.data_ptr(), out.data_ptr(), 0)
        return out, None
    where = x.new_empty_strided(prepared.out_shape, prepared.out_strides, dtype=prepared.index_dtype)
    prepared.launch(x.data_ptr(), out.data_ptr(), where.data_ptr())
    return out, where


def run_grad_input(choice, prepared: Prepared, grad_output: torch.Tensor, indices: torch.Tensor | None) -> torch.Tensor:
    """The gradient with respect to the input. The choice has a plan."""
    if not registry.recorders:
        return _run_grad_input(choice, prepared, grad_output, indices)
    with registry.timed(choice):
        return _run_grad_input(choice, prepared, grad_output, indices)


def _run_grad_input(choice, prepared, grad_output, indices):
    if grad_output.stride() != prepared.out_strides:
        dense = grad_output.new_empty_strided(prepared.out_shape, prepared.out_strides)
        grad_output = dense.copy_(grad_output)
    strides = _strides(prepared.input_shape, prepared.spec.rank, prepared.channels_last)
    grad_input = grad_output.new_empty_strided(prepared.input_shape, strides)
    choice.plan.launch(grad_input.data_ptr(), grad_output.data_ptr(), 0 if indices is None else indices.data_ptr())
    return grad_input
