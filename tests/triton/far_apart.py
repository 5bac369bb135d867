"""Runs the Triton kernels in Triton's interpreter on tensors whose images or rows lie 2^30 elements apart.

    TRITON_INTERPRET=1 python -m tests.triton.far_apart

What lies in between is never touched: it takes addresses, no memory. An offset counted in 31 bits ends outside.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np

import pycv  # noqa: F401  (torch before anything else)
from pycv.kernels import Kernel
from pycv.problem import PASSES, ConvProblem, Layout, Problem, parse

from .. import compare, draw, raw
from ..dtypes import MEMORY, decoded, encoded
from ..fuzz import check

FAR = 2**30 + 8
IMAGES = (
    "conv1d.{} n3c5w9 k4s3 p1 f16 {} cpu", "conv2d.{} n3c5h4w5 k4r3s3 p1 f16 {} cpu",
    "conv3d.{} n3c5d3h4w5 k4t2r3s3 p1 f16 {} cpu", "max_pool2d.{} n3c5h4w5 r2s2 u2 f16 {} cpu indices",
    "avg_pool2d.{} n3c5h4w5 r2s2 u2 f16 {} cpu", "batch_norm.{} n3c5h4w5 f16 {} cpu training",
    "local_response_norm.{} n3c5h4w5 l3 f16 {} cpu", "channel_sum.{} n3c5h4w5 f16 {} cpu",
)  # fmt: skip


def problems() -> Iterator[Problem]:
    for far in ("a=row/7/{0} b=row/6/{0} out=row/6/{0}", "a=row/{0}/0 out=row/{0}/0", "b=row/{0}/0", "b=col/{0}/0"):
        batch = 3 if "row/7" in far else 1
        yield parse(f"gemm.forward b{batch}m5n6k7 f16 {far.format(FAR)} cpu bias")
    for text, name, pass_ in product(IMAGES, ("nchw", "nhwc"), PASSES):
        p = parse(text.format("forward", name))
        passes = PASSES if isinstance(p, ConvProblem) else PASSES[: 1 if p.op == "channel_sum" else 2]
        if pass_ not in passes:
            continue
        input, output = (
            Layout(name, (FAR,) if name == "nchw" else (FAR, channels)) for channels in (p.c, getattr(p, "k", p.c))
        )
        yield replace(p, pass_=pass_, input=input, output=p.output if p.op == "channel_sum" else output)


def run(problem: Problem, kernel: Kernel, arrays: dict[str, np.ndarray], scalars: dict[str, float]) -> dict:
    """As raw.run, without guards."""
    assert kernel.plan is not None
    plan = kernel.plan(problem, 1, 2**24)
    views, pointers = {}, {}
    for o in raw.operands(problem, arrays):
        dtype = MEMORY[o.dtype]
        block = np.zeros(1 + sum((e - 1) * s for e, s in zip(o.shape, o.strides, strict=True)), dtype)
        view = np.ndarray(o.shape, dtype, block, 0, tuple(s * dtype.itemsize for s in o.strides))
        view[...] = encoded(arrays[o.name], o.dtype) if o.read else encoded(np.full(o.shape, np.nan), o.dtype)
        views[o.name], pointers[o.name] = (o, view), block.ctypes.data
    workspace = np.zeros(getattr(plan, "workspace_bytes", 0) + 64, np.uint8)
    if workspace.size > 64:
        pointers["workspace"] = workspace.ctypes.data + -workspace.ctypes.data % 64
    prepared = np.zeros(getattr(plan, "prepared_weight_bytes", 0), np.uint8)
    if prepared.size and isinstance(problem, ConvProblem) and problem.pass_ != "grad_weight":
        plan.prepare_weight(pointers["weight"], prepared.ctypes.data)
        pointers["weight"] = prepared.ctypes.data
    plan.run(**pointers, **scalars)
    return {name: decoded(view, o.dtype) for name, (o, view) in views.items() if o.written}


def main() -> int:
    ran = 0
    for problem in problems():
        arrays, scalars = draw.data(problem, "normal", np.random.default_rng(ran))
        for kernel in check.kernels_of("triton", problem):
            read, numeric_class = compare.as_read(kernel, problem, arrays)
            computed = run(problem, kernel, arrays, scalars)
            compare.assert_close(problem, computed, read, False, numeric_class, **scalars)
            ran += 1
    print(f"{ran} right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
