"""The Numba kernels against the reference: one operation, drawn by the seed; all of them in the full run.

Compiling takes longer than running: in the default run there is one operation, in float32.
"""

from dataclasses import replace

import pytest

from pycv.problem import parse

from .. import draw
from ..fuzz import check
from ..seed import SEED

FAMILIES = [
    ("conv",),
    ("gemm", "relu"),
    ("max_pool", "adaptive_max_pool", "avg_pool", "adaptive_avg_pool"),
    ("batch_norm", "local_response_norm", "channel_sum"),
]


def assert_right(ops, count: int, dtypes) -> None:
    ran = 0
    for i in range(count):
        source = draw.Generator(f"{SEED}.numba.{i}")
        problem = draw.problem(source, ops)
        variant = check.Variant(
            source.pick(draw.KINDS), i, source.pick((1, 2, 3)), source.pick((2**28, 0)), i % 4, i % 2 > 0
        )
        for dtype in dtypes:
            typed = replace(problem, dtype=dtype)
            for kernel in check.kernels_of("numba", typed):
                message = check.trial(typed, kernel, variant)
                assert message is None, f'PYCV_TEST_BACKEND=numba python -m tests.fuzz --problem "{typed}": {message}'
                ran += 1
    assert ran >= count // 3


def test_an_operation():
    operations = [op for family in FAMILIES for op in family]
    assert_right((operations[SEED % len(operations)],), 6, ("f32",))


@pytest.mark.full
@pytest.mark.parametrize("ops", FAMILIES, ids="+".join)
def test_families(ops):
    assert_right(ops, 300, ("f32", "f64"))


# One per kernel that the mutants break: small, with every edge.
CASES = {
    "product": "gemm.forward m71n37k9 f32 b=col cpu bias+relu",
    "row_products": "gemm.forward m7n37k19 f32 b=col cpu bias+relu",
    "im2col": "conv2d.forward n2c3h7w9 k5r3s3 u2x1 p1 f32 nchw cpu bias",
    "in_rows": "conv2d.forward n2c19h7w9 k90r3s3 u2x1 p1 f32 nchw cpu bias",
    "terms_apart": "conv2d.grad_input n2c90h5w7 k130r1s1 f32 nchw cpu",
    "strided": "conv2d.grad_input n1c3h8w9 k4r3s3 u2 p1 f32 nchw cpu",
    "phases": "conv2d.grad_input n2c4h13w10 k6r5s3 u3x4 p2x1 d2 g2 f32 nchw res=nhwc cpu bias+residual+relu",
    "grad_weight": "conv2d.grad_weight n2c3h13w13 k5r3s3 p1 f32 nchw cpu",
    "terms_mixed": "conv2d.grad_weight n1c3h7w9 k5r3s3 p1 f32 nchw w=nhwc cpu",
    "grad_weight_few": "conv2d.grad_weight n1c3h7w9 k5r3s3 p1 f32 nchw cpu",
    "max_pool": "max_pool2d.forward n2c3h7w8 r3s3 u2 p1 f32 nchw cpu indices",
    "max_pool_offsets": "max_pool3d.grad_input n1c3d5h6w9 t2r3s2 u1x2x1 p1 d1x1x3 f32 nchw cpu offsets",
    "depthwise": "conv2d.forward n2c6h7w9 k12r3s3 u2x1 p1 g6 f32 nchw cpu bias+relu",
    "avg_pool": "avg_pool2d.forward n2c3h7w8 r3s3 u2 p1 f32 nchw cpu",
    "avg_pool_nhwc": "adaptive_avg_pool2d.forward n2c3h7w8 o1 f32 nhwc cpu",
    "adaptive": "adaptive_avg_pool2d.forward n1c3h7w10 o3x4 f32 nchw cpu",
    "moments": "batch_norm.forward n3c5h4w5 f32 nchw cpu training",
    "pixels": "batch_norm.forward n3c3h63w8 f64 nhwc cpu training",
    "local_response_norm": "local_response_norm.grad_input n2c9h3w4 l4 f32 nchw cpu",
    "channel_sum": "channel_sum.forward n2c5h4w3 f32 nhwc/90/7 cpu",
    "relu": "relu.grad_input e70 f32 cpu",
    "threads": "relu.forward e100000 f32 cpu",
    "batch_norm": "batch_norm.grad_input n3c5h4w5 f32 nhwc cpu training+relu",
}


@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
def test_case(name):
    problem = parse(CASES[name])
    for kernel in check.kernels_of("numba", problem):
        assert check.fails(problem, kernel) is None
