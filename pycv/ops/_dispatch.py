"""What every op needs to know before it runs: which path it is on, and what a tensor is in a problem's words.

Direct path: plain dense tensors, nothing watching. The op looks its plan up by a plain tuple and calls the kernel.
Anything else (compilation, tracing, a torch mode, autocast, functorch, forward-mode AD, tensor subclasses) takes
the op's other path: its torch.library op, or torch's own op where that is the better citizen.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch.autograd import forward_ad

from .. import registry
from ..problem import Layout, Problem, Sizes
from ..settings import Settings

T = TypeVar("T")

_C = torch._C
_PLAIN_TYPES = frozenset((torch.Tensor, torch.nn.Parameter))
_peek_functorch = _C._functorch.peek_interpreter_stack
is_functorch_wrapper = _C._functorch.is_functorch_wrapped_tensor
is_batched = _C._functorch.is_legacy_batchedtensor  # by the older vmap, that of is_grads_batched
_is_compiling = torch.compiler.is_compiling
_is_dynamo_compiling = torch.compiler.is_dynamo_compiling
_is_tracing = _C._is_tracing
_dispatch_modes = _C._len_torch_dispatch_stack
_function_modes = _C._len_torch_function_stack
_autocasts = _C._is_any_autocast_enabled
threads = torch.get_num_threads
deterministic = _C._get_deterministic_algorithms
_strided = torch.strided

DTYPES = {
    torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16",
    torch.int8: "i8", torch.uint8: "uint8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64",
    torch.bool: "bool", torch.complex32: "c32", torch.complex64: "c64", torch.complex128: "c128",
}  # fmt: skip

MAX_CHOICES = 4096  # entries an op's dictionary of choices may hold before it is emptied


def plain(x: torch.Tensor) -> bool:
    """A dense tensor whose memory holds its values: no subclass, sparse or nested layout, lazy negation, wrapper that
    outlived its functorch transform, or batch of the older vmap, which nothing announces."""
    return (
        type(x) in _PLAIN_TYPES
        and x.layout is _strided
        and not x.is_neg()
        and not x.is_nested
        and not is_functorch_wrapper(x)
        and not is_batched(x)
    )


def library_takes(x: torch.Tensor) -> bool:
    """As :func:`plain`, for the library op: the dispatcher resolves a lazy negation, and the test is traceable."""
    return type(x) in _PLAIN_TYPES and x.layout is _strided


def observed() -> bool:
    """Somebody wants to see the torch ops that run: a compiler, tracer, mode, transform or dual level.

    The order matters: torch.compile folds the first test to True and must not meet the others. Export without dynamo
    shows as a mode.
    """
    return (
        _is_dynamo_compiling()
        or _dispatch_modes() > 0
        or _function_modes() > 0
        or _peek_functorch() is not None
        or _is_tracing()
        or forward_ad._current_level >= 0
    )


def watched() -> bool:
    """:func:`observed`, or under autocast: what an op asks whose dtype autocast decides."""
    return observed() or _autocasts()


def wants_torch() -> bool:
    """Whoever is watching is better served by torch's own op than by one of ours: export, a tracer, a transform, a
    torch_function mode, forward-mode AD. Ask only where :func:`watched`."""
    if _is_compiling():
        return torch.compiler._is_exporting_flag  # what is_exporting() returns; dynamo of torch 2.11 folds that to True
    return _function_modes() > 0 or _peek_functorch() is not None or _is_tracing() or forward_ad._current_level >= 0


def context_key(settings: Settings) -> tuple:
    """The part of a choice's key that does not come from the arguments. Settings are interned, so id() is enough."""
    return (id(settings), threads(), deterministic())


def require_64_bits(op: str, name: str, given, *values: int) -> None:
    """Raises torch's classes, ValueError for a number and TypeError for one of a sequence, where one has more bits."""
    if any(isinstance(v, int) and not -(2**63) <= v < 2**63 for v in values):
        kind = TypeError if isinstance(given, (tuple, list)) else ValueError
        raise kind(f"{op}(): argument {name}={given!r} does not fit into 64 bits")


def require_memory(shape: Sizes) -> None:
    """Raises RuntimeError where a result has too many elements to be counted: kernels would compute their addresses."""
    if math.prod(shape) >= 2**59:
        raise RuntimeError(f"a result of size {list(shape)} is too large for any memory")


def holds_tensor(arguments: tuple) -> bool:
    """A tensor is among the arguments, which as a key would be known by its identity, whatever its value is by then."""
    return any(isinstance(v, torch.Tensor) or (isinstance(v, tuple) and holds_tensor(v)) for v in arguments)


def choose(device: torch.device, problem: Problem, settings: Settings, kept: bool = False) -> registry.Choice:
    """The registry's choice for tensors of a device."""
    with current_gpu(device):
        return registry.choose(problem, settings, threads(), kept)


def current_gpu(device: torch.device) -> AbstractContextManager:
    """Around choosing: kernels are judged on torch's current GPU, and that of the tensors may be of another kind."""
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        return torch.cuda.device(device)
    return nullcontext()


def remember(choices: dict[tuple, T], key: tuple, choice: T) -> T:
    """Keeps a choice under its key; the dictionary stays bounded when shapes vary for ever."""
    if len(choices) >= MAX_CHOICES:
        choices.clear()
    choices[key] = choice
    return choice


def layout_of(x: torch.Tensor) -> Layout | None:
    """The layout of a batched (N, C, spatial...) tensor, or None if only a copy has one."""
    return Layout.of(tuple(x.shape), x.stride())
