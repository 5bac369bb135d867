"""relu: max(x, 0), NaN stays NaN. Its gradient passes where the forward's output is not <= 0 (so NaN passes it)."""

from __future__ import annotations

import numpy as np

from pycv.problem import PointwiseProblem


def run(problem: PointwiseProblem, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """forward reads ``input``; grad_input reads the forward's output as ``input``, and ``grad_output``."""
    x = arrays["input"]
    if problem.pass_ == "forward":
        return {"output": np.maximum(x, 0)}
    return {"output": np.where(x <= 0, 0.0, arrays["grad_output"])}
