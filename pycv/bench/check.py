"""Is what was timed also right? Compares a contender with float64 on data that it has not been timed on."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..problem import ConvProblem, GemmProblem, Layout, Matrix, PointwiseProblem, Problem
from .contenders import Call, call
from .data import Data, arranged

NO_RESULT = "refused: its result is not finite, or has another shape than float64's"
# Beyond this error a result is wrong rather than rounded: TF32 and Winograd's largest tiles stay below 3e-3, sums in 16
# bits below 3e-2.
_WRONG = {"f32": 1e-2, "f64": 1e-2}


def refusal(problem: Problem, error: float) -> str | None:
    """Why a contender of such an error gets no time; None if it does."""
    if not math.isfinite(error):
        return NO_RESULT
    wrong = error > _WRONG.get(problem.dtype, 1e-1)
    return f"refused: its result is wrong by {error:.1e} of the largest element" if wrong else None


def reference(problem: Problem, data: Data) -> Tensor:
    """The result of the problem in float64 on the CPU, by torch."""
    dense = replace(problem, dtype="f64", device="cpu")
    if isinstance(dense, GemmProblem):
        residual = None if dense.residual is None else Matrix()
        dense = replace(dense, a=Matrix(), out=Matrix(), residual=residual)
    elif isinstance(dense, ConvProblem):
        residual_layout = None if dense.residual is None else Layout()
        dense = replace(dense, input=Layout(), output=Layout(), weight=Layout(), residual=residual_layout)
    elif not isinstance(dense, PointwiseProblem):
        dense = replace(dense, input=Layout(), output=Layout())
    exact = {name: value.to("cpu", torch.float64) for name, value in data.items()}
    return call(torch.nn, torch.nn.functional, dense, arranged(dense, exact))()


def error(made: Call, expected: Tensor) -> float:
    """max |result - expected| / max |expected|; infinite where the result has another shape or is not finite."""
    result = made()
    expected, result = _values(expected), _values(result)
    if result.shape != expected.shape:
        return math.inf
    if expected.numel() == 0:
        return 0.0
    difference = (result.to("cpu", torch.float64) - expected).abs().max().item()
    largest = expected.abs().max().item()
    if not math.isfinite(difference):
        return math.inf
    return difference / largest if largest else difference


def _values(result: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Of a pooling that also returns indices only the values: a tie may be won by either of two equal elements."""
    return result[0] if isinstance(result, tuple) else result
