"""Matrix product: out = relu(alpha * a @ b + beta * residual + bias), per batch; bias is one value per column."""

from __future__ import annotations

import numpy as np

from pycv.problem import GemmProblem


def run(
    problem: GemmProblem, arrays: dict[str, np.ndarray], alpha: float = 1.0, beta: float = 1.0
) -> dict[str, np.ndarray]:
    """a (batch, m, k), b (batch, k, n), residual (batch, m, n), bias (n). With beta 0 the residual is not read."""
    out = alpha * (arrays["a"] @ arrays["b"])
    if "residual" in problem.epilogue and beta != 0:
        out = out + beta * arrays["residual"]
    if "bias" in problem.epilogue:
        out = out + arrays["bias"]
    return {"out": np.maximum(out, 0) if "relu" in problem.epilogue else out}
