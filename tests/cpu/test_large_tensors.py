"""Offsets beyond 2^31 elements: one tensor of 8.6 GB, mostly zeros that were never touched.

Reading it takes little memory, writing it at most 9 GB. Everything that is not 0 lies in the last window of the large
tensor; the reference solves the problem of that window.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pycv import registry
from pycv.kernels import reference
from pycv.problem import ConvProblem, parse

from ..compare import AMPLIFICATION, tolerance

# A stride that makes the output small; and, for algorithms of stride 1, few output channels instead.
SPARSE = "conv2d.{} n1c1h46400w46400 k2r3s3 u773 f32 nchw cpu"
DENSE = "conv2d.{} n1c64h5800w5800 k1r3s3 f32 nchw cpu"
KERNELS = [kernel for kernel in registry.kernels("conv2d") if kernel.backend == "cpu"]


def _problem(kernel) -> ConvProblem | None:
    for text in (SPARSE, DENSE):
        problem = parse(text.format(kernel.pass_))
        # A gradient of stride 1 would need two large tensors, or one full of products.
        if kernel.supports(problem) is None and (text == SPARSE or kernel.pass_ == "forward"):
            return problem
    return None


def _window(p: ConvProblem) -> ConvProblem:
    """The problem of the last output element alone."""
    return replace(p, size=p.filter, output_size=(1, 1), stride=(1, 1))


@pytest.mark.full
@pytest.mark.parametrize("kernel", [k for k in KERNELS if _problem(k)], ids=lambda k: f"{k.pass_}-{k.name}")
def test_offsets_beyond_two_to_the_31(kernel):
    problem = _problem(kernel)
    rng = np.random.default_rng(5)
    arrays = {
        "input": np.zeros((1, problem.c, *problem.size), np.float32),
        "weight": rng.standard_normal((problem.k, problem.c, *problem.filter)).astype(np.float32),
        "output": np.zeros((1, problem.k, *problem.output_size), np.float32),
    }
    last = tuple(slice((o - 1) * u, (o - 1) * u + 3) for o, u in zip(problem.output_size, problem.stride, strict=True))
    assert arrays["input"][..., : last[0].start, :].size > 2**31
    where = {"input": (..., *last), "weight": ..., "output": (..., slice(-1, None), slice(-1, None))}
    computed = {"forward": "output", "grad_input": "input", "grad_weight": "weight"}[kernel.pass_]
    for name in ("input", "output"):
        if name != computed:
            part = arrays[name][where[name]]
            part[...] = rng.standard_normal(part.shape)
    window = {name: arrays[name][where[name]].astype(np.float64) for name in arrays}

    plan = kernel.plan(problem, 2, 2**28)
    workspace = np.empty(plan.workspace_bytes + 64, np.uint8)
    weight = arrays["weight"]
    if kernel.pass_ != "grad_weight" and plan.prepared_weight_bytes:
        weight = np.empty(plan.prepared_weight_bytes, np.uint8)
        plan.prepare_weight(arrays["weight"].ctypes.data, weight.ctypes.data)
    aligned = workspace.ctypes.data + -workspace.ctypes.data % 64
    plan.run(arrays["input"].ctypes.data, weight.ctypes.data, arrays["output"].ctypes.data, workspace=aligned)

    expected = reference.run(_window(problem), window)[computed]
    sizes = reference.run(_window(problem), {name: np.abs(values) for name, values in window.items()})[computed]
    limit = AMPLIFICATION[kernel.numeric_class] * tolerance("f32", 600) * sizes.max()
    np.testing.assert_allclose(arrays[computed][where[computed]], expected, rtol=0, atol=limit)
    if computed == "input":
        assert not arrays["input"][..., -1, :].any()  # no window reaches the last row
