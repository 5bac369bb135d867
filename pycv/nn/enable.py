"""``pycv.enable()``: a block in which torch's functional calls run on pycv's kernels.

A torch_function mode: scoped to the block and the thread, nested calls of composite torch functions are not seen
(``F.multi_head_attention_forward`` keeps torch's linear). While a handler runs torch has taken the mode off its stack,
so that the op finds plain tensors and nothing watching. Each torch call in the block costs about a microsecond more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode, _pop_mode_temporarily

from .. import functional


class _Handler:
    """pycv's function for one of torch's, and the arguments it takes: whatever else is given is torch's to handle."""

    def __init__(self, function: Callable[..., Any], **forced: Any):
        parameters = inspect.signature(function).parameters.values()
        self.function = function
        self.positional = sum(p.kind is not p.KEYWORD_ONLY for p in parameters)
        self.keywords = frozenset(p.name for p in parameters)
        self.forced = forced

    def takes(self, args: tuple, kwargs: dict) -> bool:
        return len(args) <= self.positional and kwargs.keys() <= self.keywords

    def __call__(self, args: tuple, kwargs: dict) -> Any:
        return self.function(*args, **{**kwargs, **self.forced})


def _handlers() -> dict[Callable, _Handler]:
    ranks = ("1d", "2d", "3d")
    families = ("conv", "conv_transpose", "max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool")
    names = [family + rank for family in families for rank in ranks]
    names += ["linear", "relu", "batch_norm", "local_response_norm"]
    table = {getattr(F, name): _Handler(getattr(functional, name)) for name in names}
    for name in names:
        if "max_pool" in name:
            table[getattr(F, name + "_with_indices")] = _Handler(getattr(functional, name), return_indices=True)
    for owner in (torch, Tensor):
        for name in ("mm", "bmm", "matmul", "addmm"):
            table[getattr(owner, name)] = _Handler(getattr(functional, name))
        table[owner.relu] = _Handler(functional.relu)
        table[owner.relu_] = _Handler(functional.relu, inplace=True)
    return table


HANDLERS = _handlers()


class FunctionalMode(TorchFunctionMode):
    """Runs pycv's function in place of torch's wherever there is one for the call."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        handler = HANDLERS.get(func)
        if handler is None or torch.compiler.is_compiling() or not handler.takes(args, kwargs):
            return func(*args, **kwargs)
        return handler(args, kwargs)


def enable() -> FunctionalMode:
    """A context manager: inside the block, on this thread, torch's functional calls run on pycv's kernels.

    Reached are the functions of ``torch.nn.functional`` that :mod:`pycv.functional` has, ``torch.relu``, ``mm``,
    ``bmm``, ``matmul``, ``addmm`` and the tensor methods of those names (``a @ b`` included), also where torch.nn
    layers call them. Not reached: calls inside composite torch functions, TorchScript and torch.compile.

    Examples
    --------
    >>> with pycv.enable():
    ...     y = F.relu(F.conv2d(x, w))
    """
    return FunctionalMode()


def on_top() -> bool:
    """This thread is inside ``enable()`` and no other torch_function mode was entered since."""
    return type(_get_current_function_mode()) is FunctionalMode


def suspended() -> AbstractContextManager:
    """Takes the mode on top off for a block: pycv's layers need no detour through torch's functions."""
    return _pop_mode_temporarily()
