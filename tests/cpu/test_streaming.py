"""Results that are written past the caches: more than 8 MB (Winograd's: 16), in whole vectors at aligned addresses.

torch's memory is aligned; the rows of these problems are, or are not: vectors at addresses that are not must be stored
as any others, or the processor stops the program.
"""

from dataclasses import replace

import pytest
import torch

from pycv.bench.contenders import contender
from pycv.bench.data import random_data
from pycv.problem import parse

pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")

CONVOLUTIONS = [
    ("direct", "conv2d.forward n1c3h256w272 k32r3s3 p1"),
    ("direct", "conv2d.forward n2c3h257w255 k24r3s3 p1 f32 nchw cpu bias+relu"),
    ("direct", "conv2d.forward n1c3h256w272 k48r3s3 p1 f32 nchw cpu residual+relu"),
    ("direct", "conv2d.forward n1c100h128w144 k128r3s3 p1"),  # several sums of one result
    ("direct", "conv2d.forward n1c2h128w272 k40r3s3 p1 f64"),
    ("direct", "conv2d.grad_input n1c32h256w272 k5r3s3 u2 p1"),
    ("winograd/f4", "conv2d.forward n1c5h384w352 k32r3s3 p1 f32 nchw cpu bias+residual"),
    ("winograd/f4", "conv2d.grad_input n1c36h353w383 k5r3s3 p1"),
    ("depthwise", "conv2d.forward n1c32h256w272 k32r3s3 p1 g32"),
    ("depthwise", "conv2d.forward n1c36h257w255 k36r3s3 p1 g36 f32 nchw cpu bias+residual+relu"),
    ("depthwise", "conv2d.forward n1c72h256w272 k72r5s5 u2x1 p2 g72"),
    ("depthwise", "conv2d.grad_input n1c32h256w272 k32r3s3 u2 p1 g32"),
    ("depthwise", "conv2d.forward n1c16h256w272 k16r3s3 p1 g16 f64"),
    ("depthwise", "conv2d.forward n38c64h28w32 k64r3s3 p1 g64"),  # transposed
    ("depthwise", "conv2d.forward n38c70h29w31 k70r3s3 p1 g70"),
    ("implicit_gemm", "conv2d.forward n1c24h256w272 k32r1s1"),
    ("im2col", "conv2d.forward n2c3h257w255 k24r3s3 p1"),
]
OTHERS = [
    "max_pool2d.forward n1c32h256w272 r3s3 p1",
    "max_pool2d.forward n1c36h257w255 r3s3 p1",
    "max_pool2d.forward n1c32h256w272 r3s3 p1 f32 nchw cpu indices",
    "max_pool2d.grad_input n1c32h256w272 r3s3 u2 p1",
    "max_pool2d.grad_input n1c36h257w255 r3s3 u2 p1",
    "avg_pool2d.forward n1c32h256w272 r2s4",
    "avg_pool2d.forward n1c36h257w255 r2s4",
    "avg_pool2d.forward n38c64h32w32 r2s4 p1",  # transposed
    "gemm.forward m1100n2048k24",
    "gemm.forward m1100n2050k24",
    "relu.forward e2200001",
]


def check(text: str, name: str, exact: bool) -> None:
    problem = parse(text)
    data = random_data(problem, 3)
    if exact:
        data = {key: value.mul(2).round() for key, value in data.items()}
    double = {key: value.double() for key, value in data.items()}
    for layout in ("",) if problem.op in ("gemm", "relu") else ("@nchw", "@nhwc"):
        with torch.no_grad():
            computed = contender(name + layout).prepare(problem, data)()
            expected = contender("torch:nchw").prepare(replace(problem, dtype="f64"), double)()
        for ours, theirs in zip(tensors(computed), tensors(expected), strict=True):
            largest = 0 if exact else 1e-4 * theirs.abs().max().item()
            torch.testing.assert_close(ours.to(theirs.dtype), theirs, rtol=0, atol=largest)


def tensors(result) -> tuple[torch.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize(("algorithm", "text"), CONVOLUTIONS)
def test_convolution(algorithm, text):
    check(text, f"cpu:{algorithm}", exact="winograd" not in algorithm)


@pytest.mark.parametrize("text", OTHERS)
def test_others(text):
    check(text, "cpu", exact="avg_pool" not in text)
