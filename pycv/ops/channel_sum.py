"""channel_sum: out[c] = sum of x[:, c, ...]. Gradient: grad_output[c] everywhere in channel c.

The gradient of a per-channel bias. fp32 sums are accumulated in double, deterministically.
"""

from __future__ import annotations

import torch

from .. import registry, settings
from ..problem import Layout, NormProblem
from ._dispatch import DTYPES, context_key, layout_of, plain, remember, watched
from ._workspace import workspace

_choices: dict[tuple, registry.Choice] = {}


def channel_sum(x: torch.Tensor) -> torch.Tensor:
    """Sums an (N, C, spatial...) tensor, of any strides, over everything but its channels: shape (C,)."""
    if watched() or not plain(x):
        return _torch_sum(x)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return _forward(x)
    return _ChannelSum.apply(x)


def _torch_sum(x: torch.Tensor) -> torch.Tensor:
    return x.sum([0, *range(2, x.dim())])


def _choice(x: torch.Tensor) -> registry.Choice:
    current = settings.current()
    key = (x.shape, x.stride(), x.dtype, x.device, context_key(current))
    choice = _choices.get(key)
    if choice is None:
        n, c, *size = x.shape
        layout = layout_of(x) or Layout()
        dtype = DTYPES.get(x.dtype, str(x.dtype))
        problem = NormProblem(
            "channel_sum", "forward", n, c, tuple(size), dtype, x.device.type, input=layout, output=layout
        )
        choice = remember(_choices, key, registry.choose(problem, current, torch.get_num_threads()))
    return choice


def _forward(x: torch.Tensor) -> torch.Tensor:
    choice = _choice(x)
    if registry.recorders:
        with registry.timed(choice):
            return _run(choice, x)
    return _run(choice, x)


def _run(choice: registry.Choice, x: torch.Tensor) -> torch.Tensor:
    if choice.plan is None:
        return _torch_sum(x)
    if layout_of(x) is None:
        x = x.contiguous()
    out = x.new_empty(x.shape[1])
    _memory, scratch = workspace(choice.plan.workspace_bytes, x)
    choice.plan.run(input=x.data_ptr(), output=out.data_ptr(), workspace=scratch)
    return out


class _ChannelSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.shape = x.shape
        return _forward(x)

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output.reshape(-1, *[1] * (len(ctx.shape) - 2)).expand(ctx.shape)
