"""relu: max(x, 0), NaN stays NaN. Its gradient passes where the forward's output is not <= 0 (so NaN passes it)."""

from __future__ import annotations

import numpy as np

from pycv.problem import PointwiseProblem


def run(problem: PointwiseProblem, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """forward reads ``input``; grad_input reads the forward's output as ``input``, and ``grad_output``.

    With a mask, forward also gives that, bytes, which grad_input reads in place of ``input``.
    """
    if problem.pass_ == "forward":
        y = np.maximum(arrays["input"], 0)
        return {"output": y} | ({"mask": np.packbits(~(y <= 0), bitorder="little")} if problem.mask else {})
    if problem.mask:
        passes = np.unpackbits(arrays["mask"], count=problem.count, bitorder="little") != 0
    else:
        passes = ~(arrays["input"] <= 0)
    return {"output": np.where(passes, arrays["grad_output"], 0.0)}
