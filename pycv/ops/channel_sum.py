"""channel_sum: out[c] = sum of x[:, c, ...]. Gradient: grad_output[c] everywhere in channel c.

The gradient of a per-channel bias. fp32 sums are accumulated in double, deterministically.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import registry, settings
from ..problem import Layout, NormProblem
from ._dispatch import DTYPES, choose, context_key, layout_of, plain, remember, watched
from ._workspace import workspace

_calls: dict[tuple, _Call] = {}


class _Call:
    """What the call of a kernel takes; ``copy`` where only a copy of the tensor has a layout."""

    __slots__ = ("choice", "copy", "launch", "workspace_bytes")

    def __init__(self, choice: registry.Choice, copy: bool):
        self.choice, self.copy = choice, copy
        plan = choice.plan
        self.launch: Any = plan.launch if plan is not None else None
        self.workspace_bytes = plan.workspace_bytes if plan is not None else 0


def channel_sum(x: torch.Tensor) -> torch.Tensor:
    """Sums an (N, C, spatial...) tensor, of any strides, over everything but its channels: shape (C,)."""
    if watched() or not plain(x):
        return _torch_sum(x)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return _forward(x)
    return _ChannelSum.apply(x)


def _torch_sum(x: torch.Tensor) -> torch.Tensor:
    return x.sum([0, *range(2, x.dim())])


def _call(x: torch.Tensor) -> _Call:
    current = settings.current()
    key = (x.shape, x.stride(), x.dtype, x.device, context_key(current))
    call = _calls.get(key)
    if call is None:
        n, c, *size = x.shape
        found = layout_of(x)
        layout = found or Layout()
        dtype = DTYPES.get(x.dtype, str(x.dtype))
        problem = NormProblem(
            "channel_sum", "forward", n, c, tuple(size), dtype, x.device.type, input=layout, output=layout
        )
        choice = choose(x.device, problem, current)
        call = remember(_calls, key, _Call(choice, found is None))
    return call


def _forward(x: torch.Tensor) -> torch.Tensor:
    call = _call(x)
    if not registry.recorders:
        return _run(call, x)
    with registry.timed(call.choice):
        return _run(call, x)


def _run(call: _Call, x: torch.Tensor) -> torch.Tensor:
    if call.launch is None:
        return _torch_sum(x)
    if call.copy:
        x = x.contiguous()
    out = x.new_empty(x.shape[1])
    _memory, scratch = workspace(call.workspace_bytes, x)
    call.launch(x.data_ptr(), 0, out.data_ptr(), 0, 0, 0, 0, 0, 0, 0, 0, scratch, 0, 0, 0, 0.0, 0.0)
    return out


class _ChannelSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.shape = x.shape
        return _forward(x)

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output.reshape(-1, *[1] * (len(ctx.shape) - 2)).expand(ctx.shape)
