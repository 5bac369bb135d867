"""Per-element comparison with the float64 reference.

The bound of an element is tolerance * what its terms add up to in absolute value: the reference run on absolute values,
so that a large element cannot hide a wrong small one, and a missing term shows however long the sum is. The tolerance
grows with the square root of the number of terms, as rounding does.

Algorithms that are not strict (Winograd, FFT) mix the elements of a tile: their errors are measured against the largest
sum of the plane, and a non-finite term may spread within the images (or filters) that have one.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from pycv.kernels import Kernel, reference
from pycv.kernels.reference import conv, norm
from pycv.problem import ConvProblem, GemmProblem, NormProblem, PointwiseProblem, PoolProblem, Problem

from .dtypes import COMPUTED_IN, rounded, rounded_to_tf32

EPSILONS = {"f32": 2.0**-23, "f64": 2.0**-52, "f16": 2.0**-10, "bf16": 2.0**-7}
AMPLIFICATION = {"strict": 1.0, "default": 64.0, "fast": 512.0}  # of rounding errors by a numeric class
Arrays = dict[str, np.ndarray]


def tolerance(dtype: str, terms: int) -> float:
    """Relative to the sum of absolute values. Rounding errors of a sum of equal signs measure about sqrt(terms) / 6."""
    return EPSILONS[COMPUTED_IN.get(dtype, dtype)] * (4 + terms**0.5)


def as_read(kernel: Kernel, problem: Problem, arrays: Arrays) -> tuple[Arrays, str]:
    """The arrays as a kernel reads them, and the numeric class of what it does with those: products of tf32 are sums
    like any others, of operands that have been rounded to 11 bits: ties to even by the copies of Hopper's tensor memory
    accelerator, away from zero by the conversion that other kernels use. What a prologue makes of the input is rounded
    to its dtype first."""
    if "input_scale" in arrays and (kernel.variant == "tf32" or problem.dtype in COMPUTED_IN):
        arrays = _with_scaled_input(problem, arrays)
    if kernel.variant != "tf32":
        return arrays, kernel.numeric_class
    added, to_even = ("bias", "residual"), "wgmma" in kernel.algorithm
    return {name: a if name in added else rounded_to_tf32(a, to_even) for name, a in arrays.items()}, "strict"


def _with_scaled_input(problem: Problem, arrays: Arrays) -> Arrays:
    """The same with a scale of 1 and a shift of 0. Of numbers of 24 bits float64 holds the product, and all but all of
    the sum: rounded to float32 it is that of one multiply-add."""
    scaled = conv.prologue(arrays["input"].astype(np.float64), ("scale",), arrays).astype(np.float32)
    neutral = {"input_scale": np.ones_like(arrays["input_scale"]), "input_shift": np.zeros_like(arrays["input_shift"])}
    return arrays | neutral | {"input": rounded(scaled, problem.dtype).astype(arrays["input"].dtype)}


def assert_close(
    problem: Problem,
    computed: Arrays,
    arrays: Arrays,
    exact: bool = False,
    numeric_class: str = "strict",
    **scalars: float,
) -> None:
    """Raises AssertionError naming the tensor and its worst element unless ``computed`` is what ``problem`` asks for.

    ``arrays`` and ``scalars`` are what the reference takes; ``computed`` holds any of the tensors that it returns.
    ``exact``: the data are such that no sum rounds (sparse small integers), so every element has to be equal.
    NaN and infinities have to be equal in any case, but for the spread that ``numeric_class`` allows.
    """
    expected = reference.run(problem, arrays, **scalars)
    bounds = None if exact else magnitudes(problem, arrays, expected, **scalars)
    terms = reduction_length(problem)
    for name, values in computed.items():
        limit = 0.0
        if bounds is not None and name in bounds:
            limit = tolerance(problem.dtype, terms) * bounds[name]
            if problem.dtype in COMPUTED_IN:
                limit = limit + EPSILONS[problem.dtype] * np.abs(expected[name])
        if numeric_class != "strict":
            limit = _plane_maximum(limit)
            if isinstance(problem, ConvProblem):
                limit = np.maximum(limit, tolerance(problem.dtype, terms) * largest_products(problem, arrays))
            limit = AMPLIFICATION[numeric_class] * limit
            sums = expected
            if "relu" in getattr(problem, "epilogue", ()):  # of -inf it makes a finite 0
                sums = reference.run(replace(problem, epilogue=_without_relu(problem)), arrays, **scalars)
            values = _without_spread(f"{problem}: {name}", values, expected[name], sums[name])
        nearest = rounded(expected[name], problem.dtype) if values.dtype.kind == "f" else expected[name]
        assert_elements(f"{problem}: {name}", values, nearest, limit)


def _plane_maximum(limit: np.ndarray) -> np.ndarray:
    """The largest finite element over the spatial axes of each (n, channel) or (k, c)."""
    finite = np.where(np.isfinite(limit), limit, 0.0)
    return np.broadcast_to(finite.max(tuple(range(2, limit.ndim)), keepdims=True), limit.shape)


def largest_products(problem: ConvProblem, arrays: Arrays) -> np.ndarray:
    """Per computed plane, the largest absolute values of its terms' planes, multiplied and summed.

    Where an image is so small that most taps meet only padding, what a transform rounds of those still counts.
    """
    names = {"input", "weight", "output"} & set(arrays)
    maxima = {name: _plane_maximum(np.abs(arrays[name]))[(..., *[slice(0, 1)] * len(problem.size))] for name in names}
    ones, zeros = (1,) * len(problem.size), (0,) * len(problem.size)
    one_pixel = replace(
        problem, size=ones, filter=ones, output_size=ones, stride=ones, padding=zeros, dilation=ones,
        epilogue=(), prologue=(),
    )  # fmt: skip
    return next(iter(reference.run(one_pixel, maxima).values()))


def _without_relu(problem: Problem) -> tuple[str, ...]:
    return tuple(step for step in problem.epilogue if step != "relu")


def _without_spread(what: str, computed: np.ndarray, expected: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The computed tensor with the expected values wherever a non-finite term explains that they are none.

    ``sums`` are the expected values as they were before relu.
    """
    bad = ~np.isfinite(expected)
    finite_there = np.isfinite(computed) & bad
    assert not finite_there.any(), f"{what}: finite where a non-finite term makes the sum non-finite"
    images = (~np.isfinite(sums)).any(tuple(range(1, sums.ndim)), keepdims=True)
    return np.where(bad | (images & ~np.isfinite(computed)), expected, computed).astype(computed.dtype)


def assert_elements(what: str, computed: np.ndarray, expected: np.ndarray, limit: np.ndarray | float = 0.0) -> None:
    """Every element within ``limit`` of the expected one, rounded to the dtype of ``computed``; NaN equals NaN."""
    assert computed.shape == expected.shape, f"{what}: shape {computed.shape}, expected {expected.shape}"
    expected = expected.astype(computed.dtype)
    with np.errstate(all="ignore"):
        close = np.abs(computed.astype(np.float64) - expected) <= limit
    wrong = ~(close | (computed == expected) | (np.isnan(computed) & np.isnan(expected)))
    if not wrong.any():
        return
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    limit_there = np.broadcast_to(limit, expected.shape)[where]
    raise AssertionError(
        f"{what}{list(where)} is {computed[where]!r}, expected {expected[where]!r} within {limit_there:.3g}"
        f" ({int(wrong.sum())} of {wrong.size} elements are wrong)"
    )


def reduction_length(problem: Problem) -> int:
    """How many terms the longest sum of one computed element has, at most."""
    if isinstance(problem, ConvProblem):
        taps, group = _count(problem.filter), problem.groups
        positions = problem.n * _count(problem.output_size)
        return {"forward": problem.c // group * taps, "grad_input": problem.k // group * taps}.get(
            problem.pass_, positions
        )
    if isinstance(problem, GemmProblem):
        return problem.k
    if isinstance(problem, PoolProblem):
        return _count(problem.size) if not problem.filter or problem.pass_ == "grad_input" else _count(problem.filter)
    if isinstance(problem, NormProblem):
        return problem.window if problem.op == "local_response_norm" else problem.n * _count(problem.size)
    return 1


def magnitudes(problem: Problem, arrays: Arrays, expected: Arrays, **scalars: float) -> Arrays:
    """Per computed tensor, the sum of the absolute values of each element's terms; a tensor left out is exact."""
    absolute = {name: np.abs(values) for name, values in arrays.items() if values.dtype.kind == "f"}
    absolute |= {name: values for name, values in arrays.items() if values.dtype.kind != "f"}
    if isinstance(problem, ConvProblem | GemmProblem):
        linear = replace(problem, epilogue=tuple(step for step in problem.epilogue if step != "relu"))
        return reference.run(linear, absolute, **{name: abs(value) for name, value in scalars.items()})
    if isinstance(problem, PoolProblem):
        exact = problem.pass_ == "forward" and "max" in problem.op
        return {} if exact else reference.run(problem, absolute)
    if isinstance(problem, PointwiseProblem):
        return {}
    if problem.op == "channel_sum":
        return reference.run(problem, absolute)
    if problem.op == "batch_norm":
        return _batch_norm_magnitudes(problem, absolute, expected, **scalars)
    return _lrn_magnitudes(problem, absolute, **scalars)


def _batch_norm_magnitudes(problem: NormProblem, arrays: Arrays, expected: Arrays, eps=1e-5, momentum=0.1) -> Arrays:
    """The difference x - mean and the sums of the gradient, with every minus sign a plus."""
    x = arrays["input"]

    def channels(values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, *[1] * (x.ndim - 2))

    axes = (0, *range(2, x.ndim))
    statistics = expected if "mean" in expected else arrays
    if problem.training:
        mean, invstd = np.maximum(np.abs(statistics["mean"]), x.mean(axes)), statistics["invstd"]
    else:
        mean, invstd = arrays["running_mean"], 1 / np.sqrt(arrays["running_var"] + eps)
    normalized = (x + channels(mean)) * channels(invstd)
    weight = arrays.get("weight", np.ones(problem.c))
    if problem.pass_ == "grad_input":
        grad = arrays["grad_output"]
        sums = {"grad_weight": (grad * normalized).sum(axes), "grad_bias": grad.sum(axes)}
        if problem.training:
            count = max(1, x.size // max(problem.c, 1))
            grad = grad + channels(sums["grad_bias"] / count) + normalized * channels(sums["grad_weight"] / count)
        return {"output": grad * channels(invstd * weight), **sums}
    bounds = {"output": normalized * channels(weight) + channels(arrays.get("bias", np.zeros(problem.c)))}
    if "residual" in arrays:
        bounds["output"] += arrays["residual"]
    if problem.training:
        # The variance is a difference: its error is one of the mean square, which may be much larger.
        square = (x**2).mean(axes) + eps
        bounds["output"] += normalized * channels(weight * invstd**2 * square)
        bounds |= {"mean": mean, "invstd": invstd**3 * square}
        if "running_mean" in arrays:
            bounds["running_mean"] = mean + arrays["running_mean"]
        if "running_var" in arrays:
            bounds["running_var"] = 2 * square + arrays["running_var"]
    return bounds


def _lrn_magnitudes(problem: NormProblem, arrays: Arrays, alpha=1e-4, beta=0.75, k=1.0) -> Arrays:
    """The power multiplies the relative error of its base by its exponent, and the base is a difference where alpha is
    negative; the two terms of the gradient are added."""
    x, w = arrays["input"], problem.window
    d = np.abs(norm.lrn_denominator(problem, x, alpha, k))
    terms = norm.lrn_denominator(problem, x, abs(alpha), abs(k))

    def power(exponent: float) -> np.ndarray:
        return d**exponent + abs(exponent) * terms * d ** (exponent - 1)

    with np.errstate(all="ignore"):
        if problem.pass_ == "forward":
            return {"output": x * power(-beta)}
        grad = arrays["grad_output"]
        through = norm.window_sum(grad * x * power(-beta - 1), (w - 1) // 2, w // 2)
        return {"output": 2 * (grad * power(-beta) + np.abs(2 * alpha * beta / w) * x * through)}


def _count(sizes: tuple[int, ...]) -> int:
    return math.prod(sizes)
