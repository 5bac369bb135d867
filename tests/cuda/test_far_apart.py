"""Offsets beyond 2^31 elements: tensors whose images, or matrices whose rows, lie that far apart.

What lies in between is never touched: it takes addresses, no memory. An offset counted in 32 bits ends outside, before
the tensor. Not here: relu, whose tensors are dense, so that 2^31 of its elements would have to be computed.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from pycv.problem import PASSES

from .. import compare, draw
from ..backend import by_host, parse
from ..triton.far_apart import run
from .execution import kernels, schedule

pytestmark = by_host
FAR = 2**31 + 8
MATRICES = (
    "gemm.forward m2n9k7 {0} a=row/{1}/0 cpu", "gemm.forward m5n9k2 {0} b=row/{1}/0 cpu",
    "gemm.forward m5n2k7 {0} b=col/{1}/0 cpu bias", "gemm.forward m9n7k2 {0} a=col/{1}/0 cpu",
    "gemm.forward m2n9k7 {0} out=row/{1}/0 cpu", "gemm.forward b2m5n6k7 {0} a=row/7/{1} b=row/6/{1} out=row/6/{1} cpu",
)  # fmt: skip
CONVS = (
    "conv2d.{} n2c5h6w7 k4r3s3 p1 f32", "conv2d.{} n2c16h6w7 k8r3s3 p1 f16", "conv2d.{} n2c6h6w7 k6r3s3 p1 g6 f32",
    "conv2d.{} n2c5h6w7 k4r2s3 u2 p1 f64",
)  # fmt: skip
OTHERS = (
    "max_pool2d.{} n2c8h6w7 r3s3 u2 p1 f16 {} cpu indices", "max_pool2d.{} n2c5h6w7 r3s3 u2 p1 f32 {} cpu offsets",
    "avg_pool2d.{} n2c8h6w7 r3s3 u2 p1 f32 {} cpu", "adaptive_avg_pool2d.{} n2c5h6w7 o4 f16 {} cpu",
    "batch_norm.{} n2c8h6w7 f32 {} cpu training+relu", "batch_norm.{} n2c5h6w7 f16 {} cpu",
    "local_response_norm.{} n2c8h6w7 l3 f32 {} cpu",
)  # fmt: skip


def problems() -> Iterator[str]:
    for dtype in ("f32", "f16"):
        yield from (text.format(dtype, FAR) for text in MATRICES)
    for layout in ("nchw", "nhwc"):
        for text in CONVS:
            c, k = (int(text.split(letter)[-1].split(end)[0]) for letter, end in (("n2c", "h"), ("k", "r")))
            far = [f"{layout}/{FAR}" + (f"/{channels}" if layout == "nhwc" else "") for channels in (c, k)]
            yield from (f"{text.format(pass_)} {'>'.join(far)} cpu" for pass_ in PASSES)
        for text in OTHERS:
            c = text.split("n2c")[1].split("h")[0]
            far = f"{layout}/{FAR}" + (f"/{c}" if layout == "nhwc" else "")
            yield from (text.format(pass_, far) for pass_ in PASSES[:2])
        yield f"channel_sum.forward n2c8h6w7 f32 {layout}/{FAR}{'/8' if layout == 'nhwc' else ''}>nchw cpu"


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # a result of integers that starts as NaN
@pytest.mark.parametrize("text", list(problems()))
def test_offsets_beyond_two_to_the_31(text):
    problem = parse(text)
    chosen = kernels(problem)
    assert chosen
    schedule("forward")
    arrays, scalars = draw.data(problem, "normal", np.random.default_rng(0))
    for kernel in chosen:
        read, numeric_class = compare.as_read(kernel, problem, arrays)
        computed = run(problem, kernel, arrays, scalars)
        compare.assert_close(problem, computed, read, False, numeric_class, **scalars)
