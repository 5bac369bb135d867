"""Max, average and adaptive pooling, and their gradients.

A window is the positions o * stride - padding + r * dilation that lie inside the input; the adaptive ops instead split
each axis into out overlapping parts, from floor(o * size / out) to ceil((o + 1) * size / out).

max: the first of the largest values, but the last NaN if there is one; where all are -inf, the first position. Indices
count within the spatial extent of the input (d * h * w), offsets within the whole window (filter), whether its elements
lie inside the input or not. Its gradient goes to the position that either names.
avg: the sum over the window / divisor: the one given, or the window's size, padding included (up to the right padding,
not beyond) or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from math import prod

import numpy as np

from pycv.problem import PoolProblem


def run(problem: PoolProblem, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """forward reads ``input``, grad_input reads ``output`` (and ``indices`` for max)."""
    if "max" in problem.op:
        forward, grad_input = _max_forward, _max_grad_input
    else:
        forward, grad_input = _avg_forward, _avg_grad_input
    return forward(problem, arrays) if problem.pass_ == "forward" else grad_input(problem, arrays)


def windows(problem: PoolProblem) -> Iterator[tuple[tuple[int, ...], tuple[list[int], ...]]]:
    """For every output position: its index, and the input positions of its window, per axis."""
    axes = [_axis_windows(problem, axis) for axis in range(len(problem.size))]
    for out in product(*map(range, problem.output_size)):
        yield out, tuple(windows[o] for windows, o in zip(axes, out, strict=True))


def _axis_windows(problem: PoolProblem, axis: int) -> list[list[int]]:
    size, out = problem.size[axis], problem.output_size[axis]
    if problem.op.startswith("adaptive"):
        return [list(range(o * size // out, -(-(o + 1) * size // out))) for o in range(out)]
    filter, stride = problem.filter[axis], problem.stride[axis]
    padding, dilation = problem.padding[axis], problem.dilation[axis]
    positions = [[o * stride - padding + r * dilation for r in range(filter)] for o in range(out)]
    return [[i for i in window if 0 <= i < size] for window in positions]


def _flat(extent: tuple[int, ...], axes: Iterable[list[int]]) -> np.ndarray:
    """The points of a grid by their numbers within ``extent``, the last axis varying fastest."""
    flat = np.zeros(1, np.int64)
    for size, points in zip(extent, axes, strict=True):
        flat = (flat[:, None] * size + np.array(points, np.int64)).ravel()
    return flat


def _flat_positions(problem: PoolProblem, window: tuple[list[int], ...]) -> np.ndarray:
    """Numbers within the spatial extent, in the order in which the window is read."""
    return _flat(problem.size, window)


def _named(problem: PoolProblem, out: tuple[int, ...], window: tuple[list[int], ...]) -> np.ndarray:
    """What names these positions of the window of ``out``, in the same order: their indices, or their offsets."""
    if problem.indices == "int64":
        return _flat_positions(problem, window)
    axes = zip(window, out, problem.stride, problem.padding, problem.dilation, strict=True)
    return _flat(problem.filter, ([(i - o * u + p) // d for i in positions] for positions, o, u, p, d in axes))


def _max_forward(problem: PoolProblem, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    shape = (problem.n, problem.c, *problem.output_size)
    output, indices = np.empty(shape), np.empty(shape, np.int64)
    planes = arrays["input"].reshape(problem.n, problem.c, prod(problem.size))
    for out, window in windows(problem):
        positions = _flat_positions(problem, window)
        values = planes[..., positions]
        missing = np.isnan(values)
        last_nan = len(positions) - 1 - np.argmax(missing[..., ::-1], -1)
        which = np.where(missing.any(-1), last_nan, np.argmax(values, -1))
        output[(..., *out)] = np.take_along_axis(values, which[..., None], -1)[..., 0]
        if problem.indices:
            indices[(..., *out)] = _named(problem, out, window)[which]
    return {"output": output, "indices": indices} if problem.indices else {"output": output}


def _max_grad_input(problem: PoolProblem, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    planes, count = problem.n * problem.c, prod(problem.output_size)
    grad_input = np.zeros((planes, prod(problem.size)))
    indices, grad = arrays["indices"].reshape(planes, count), arrays["output"].reshape(planes, count)
    if problem.indices == "offset":
        indices = _indices_of_offsets(problem, indices)
    np.add.at(grad_input, (np.arange(planes)[:, None], indices), grad)
    return {"input": grad_input.reshape(problem.n, problem.c, *problem.size)}


def _indices_of_offsets(problem: PoolProblem, offsets: np.ndarray) -> np.ndarray:
    indices = np.empty(offsets.shape, np.int64)
    for number, (out, window) in enumerate(windows(problem)):
        at = np.zeros(prod(problem.filter), np.int64)
        at[_named(problem, out, window)] = _flat_positions(problem, window)
        indices[:, number] = at[offsets[:, number]]
    return indices


def _divisor(problem: PoolProblem, out: tuple[int, ...], window: tuple[list[int], ...]) -> int:
    if problem.divisor:
        return problem.divisor
    if problem.op.startswith("adaptive") or not problem.count_include_pad:
        return prod([len(positions) for positions in window])
    starts = [o * u - p for o, u, p in zip(out, problem.stride, problem.padding, strict=True)]
    ends = [min(s + f, i + p) for s, f, i, p in zip(starts, problem.filter, problem.size, problem.padding, strict=True)]
    return prod([end - start for start, end in zip(starts, ends, strict=True)])


def _avg_forward(problem: PoolProblem, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    output = np.zeros((problem.n, problem.c, *problem.output_size))
    planes = arrays["input"].reshape(problem.n, problem.c, prod(problem.size))
    for out, window in windows(problem):
        positions = _flat_positions(problem, window)
        if len(positions):
            output[(..., *out)] = planes[..., positions].sum(-1) / _divisor(problem, out, window)
    return {"output": output}


def _avg_grad_input(problem: PoolProblem, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    grad, grad_input = arrays["output"], np.zeros((problem.n, problem.c, prod(problem.size)))
    for out, window in windows(problem):
        positions = _flat_positions(problem, window)
        if len(positions):
            grad_input[..., positions] += (grad[(..., *out)] / _divisor(problem, out, window))[..., None]
    return {"input": grad_input.reshape(problem.n, problem.c, *problem.size)}
