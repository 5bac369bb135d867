"""Convolution and its two gradients.

output[n, k, o] = sum over c and r of input[n, c, o * stride - padding + r * dilation] * weight[k, c, r]

with the input (after the prologue) 0 outside its bounds; c runs over the channels of k's group. One matrix product per
filter tap: a tap r pairs each output position with at most one input position, and the three passes differ only in
which of the three factors of that product is summed into.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

import numpy as np

from pycv.problem import ConvProblem

Tap = tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]


def run(problem: ConvProblem, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensor that ``problem.pass_`` computes from the other two, prologue and epilogue included."""
    name, compute = {
        "forward": ("output", _forward),
        "grad_input": ("input", _grad_input),
        "grad_weight": ("weight", _grad_weight),
    }[problem.pass_]
    if problem.prologue:
        arrays = arrays | {"input": prologue(arrays["input"], problem.prologue, arrays)}
    return {name: epilogue(compute(problem, arrays), problem.epilogue, arrays)}


def taps(problem: ConvProblem) -> Iterator[Tap]:
    """For every filter tap: its index, and the output and input positions that it pairs."""
    for tap in product(*map(range, problem.filter)):
        axes = [
            _paired(*axis)
            for axis in zip(
                tap, problem.size, problem.output_size, problem.stride, problem.padding, problem.dilation, strict=True
            )
        ]
        yield tap, tuple(out for out, _ in axes), tuple(inp for _, inp in axes)


def _paired(r: int, size: int, out: int, stride: int, padding: int, dilation: int) -> tuple[slice, slice]:
    """Along one axis: the o with 0 <= o * stride - padding + r * dilation < size, and those input positions."""
    shift = r * dilation - padding
    first = max(0, -(shift // stride))
    end = max(first, min(out, (size - 1 - shift) // stride + 1))
    start = first * stride + shift
    return slice(first, end), slice(start, start + (end - first) * stride, stride)


def _grouped(x: np.ndarray, groups: int) -> np.ndarray:
    """(n, c, *spatial) as (n, groups, c / groups, positions)."""
    n, c = x.shape[:2]
    return x.reshape(n, groups, c // groups, prod(x.shape[2:]))


def _forward(problem: ConvProblem, arrays: dict[str, np.ndarray]) -> np.ndarray:
    x, w, g = arrays["input"], arrays["weight"], problem.groups
    out = np.zeros((problem.n, problem.k, *problem.output_size))
    for tap, outputs, inputs in taps(problem):
        at_tap = w[(..., *tap)].reshape(g, problem.k // g, problem.c // g)
        here = out[(..., *outputs)]
        here += (at_tap @ _grouped(x[(..., *inputs)], g)).reshape(here.shape)
    return out


def _grad_input(problem: ConvProblem, arrays: dict[str, np.ndarray]) -> np.ndarray:
    grad, w, g = arrays["output"], arrays["weight"], problem.groups
    out = np.zeros((problem.n, problem.c, *problem.size))
    for tap, outputs, inputs in taps(problem):
        at_tap = w[(..., *tap)].reshape(g, problem.k // g, problem.c // g)
        here = out[(..., *inputs)]
        here += (at_tap.swapaxes(1, 2) @ _grouped(grad[(..., *outputs)], g)).reshape(here.shape)
    return out


def _grad_weight(problem: ConvProblem, arrays: dict[str, np.ndarray]) -> np.ndarray:
    x, grad, g = arrays["input"], arrays["output"], problem.groups
    out = np.zeros((problem.k, problem.c // g, *problem.filter))
    for tap, outputs, inputs in taps(problem):
        pairs = _grouped(grad[(..., *outputs)], g) @ _grouped(x[(..., *inputs)], g).swapaxes(2, 3)
        out[(..., *tap)] = pairs.sum(0).reshape(problem.k, problem.c // g)
    return out


def prologue(x: np.ndarray, steps: tuple[str, ...], arrays: dict[str, np.ndarray]) -> np.ndarray:
    """* scale + shift per channel, relu (NaN stays NaN), in this order."""
    if "scale" in steps:
        scale, shift = (arrays[name].reshape(-1, *[1] * (x.ndim - 2)) for name in ("input_scale", "input_shift"))
        x = x * scale + shift
    return np.where(x < 0, 0.0, x) if "relu" in steps else x


def epilogue(x: np.ndarray, steps: tuple[str, ...], arrays: dict[str, np.ndarray]) -> np.ndarray:
    """+ bias per channel, + residual, relu (NaN stays NaN), in this order."""
    if "bias" in steps:
        x = x + arrays["bias"].reshape(-1, *[1] * (x.ndim - 2))
    if "residual" in steps:
        x = x + arrays["residual"]
    return np.maximum(x, 0) if "relu" in steps else x
