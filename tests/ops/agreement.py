"""An op of pycv beside torch's in float64: values and gradients, every element within its own bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from pycv import registry

from .. import compare
from ..backend import INTERPRETED

DTYPES = {torch.float32: "f32", torch.float64: "f64"}


def run(function: Callable, tensors: Sequence[Tensor | None], grad_output: Tensor | None, kwargs: dict) -> list[Tensor]:
    """The result, and where a grad_output is given the gradient of every tensor that is not None."""
    leaves = [None if t is None else t.detach().requires_grad_(grad_output is not None) for t in tensors]
    y = function(*leaves, **kwargs)
    if grad_output is None:
        return [y.detach()]
    given = [leaf for leaf in leaves if leaf is not None]
    return [y.detach(), *torch.autograd.grad(y, given, grad_output)]


def gradients_hold(function: Callable, inputs: Sequence[Tensor]) -> bool:
    """torch's gradcheck and gradgradcheck; along random directions only where a kernel is interpreted."""
    return gradcheck(function, inputs, fast_mode=INTERPRETED) and gradgradcheck(function, inputs, fast_mode=INTERPRETED)


def exact_copy(t: Tensor) -> Tensor:
    """The same values in float64 on the CPU, where torch's sums of small integers are exact.

    Contiguous: torch 2.13 gets grad_weight wrong where, in two groups, an input (1, 4, 1, 2) has the strides
    (1, 1, 4, 4) and the weight (2, 2, 1, 1) has (2, 1, 2, 2).
    """
    return t.to("cpu", torch.float64).contiguous()


def assert_agrees(
    ours: Callable,
    torchs: Callable,
    tensors: Sequence[Tensor | None],
    kwargs: dict[str, Any],
    grad_output: Tensor | Callable[[Tensor], Tensor] | None = None,
    exact: bool = False,
    message: str = "",
    may_run_torch: bool = False,
    numeric_class: str = "strict",
) -> list[Tensor]:
    """Asserts that ``ours(*tensors, **kwargs)`` and its gradients are torch's, and that pycv's kernels computed them.

    The op has to be linear in each of its tensors: the bound of an element is what torch makes of absolute values;
    where the numeric class is not strict, the largest of the tensor, amplified. ``grad_output`` may be a function of
    the result. Returns what ours computed.
    """
    y64 = run(torchs, [t if t is None else exact_copy(t) for t in tensors], None, kwargs)[0]
    if callable(grad_output) and not isinstance(grad_output, Tensor):
        grad_output = grad_output(y64.to(tensors[0]))
    with registry.record() as calls:
        computed = run(ours, tensors, grad_output, kwargs)
    assert calls or y64.numel() == 0, f"{message}: nothing was recorded"
    if not may_run_torch:
        fallen_back = [call.choice for call in calls if call.choice.plan is None]
        assert not fallen_back, f"{message}: torch ran {fallen_back[0].problem}: {fallen_back[0].reason}"

    def in_float64(change: Callable[[Tensor], Tensor]) -> list[Tensor]:
        grad = None if grad_output is None else change(exact_copy(grad_output))
        return run(torchs, [t if t is None else change(exact_copy(t)) for t in tensors], grad, kwargs)

    expected = in_float64(lambda t: t)
    bounds = in_float64(torch.abs)
    terms = max([y64.numel(), *(t.numel() for t in tensors if t is not None)])
    names = ["result", *(f"gradient of tensor {i}" for i, t in enumerate(tensors) if t is not None)]
    for name, ours_, theirs, bound in zip(names, computed, expected, bounds, strict=False):
        assert ours_.dtype == tensors[0].dtype and ours_.shape == theirs.shape, f"{message}: {name}"
        limit = 0.0 if exact else compare.tolerance(DTYPES[ours_.dtype], terms) * bound.numpy()
        if numeric_class != "strict" and bound.numel():
            limit = compare.AMPLIFICATION[numeric_class] * limit.max()
        compare.assert_elements(f"{message}: {name}", ours_.cpu().numpy(), theirs.numpy(), limit)
    return computed


def outcome(function: Callable, *args: Any, **kwargs: Any) -> Exception | None:
    """The exception that a call raises, if any."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        return error
    return None
