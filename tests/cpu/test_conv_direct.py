"""Direct convolution with output channels in lanes: its block edges, blocked layouts and prologue."""

import numpy as np
import pytest

from pycv import registry
from pycv.problem import parse

from .. import compare, draw, raw
from .test_conv_kernels import LAYOUTS, PASSES, check, flat

# Each crosses a boundary of the plans: columns of a block, rows of a block, source channels of a sum, images of a
# block, vectors of positions where computed channels are few, empty phases.
CASES = {
    "columns": flat(1, 3, 18, (3, 141), 3, stride=(1, 1), padding=1),
    "columns-strided": flat(1, 2, 17, (5, 290), 3, stride=2, padding=1),
    "rows": flat(1, 2, 33, (70, 11), 3, padding=1),
    "two-sums": flat(1, 90, 34, (5, 9), 3, stride=2, padding=1),
    "one-channel-sums": flat(1, 3, 5, 29, 27, padding=13),
    "images": flat(7, 5, 34, 6, 3, stride=2, padding=1),
    "few-channels": flat(2, 5, 3, (9, 50), 3, padding=1),
    "few-channels-strided": flat(1, 3, 20, (21, 67), 5, stride=2, padding=2),
    "few-channels-stride-4": flat(1, 3, 20, (21, 67), 5, stride=4, padding=2),
    "filter-between-strides": flat(1, 4, 35, 13, 1, stride=3),
    "dilated": flat(1, 3, 18, 19, 3, stride=2, padding=4, dilation=4),
}


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("name", CASES)
def test_exact_on_integers(name, pass_):
    for threads in (1, 3):
        for layout in ("nchw", "nhwc", "mixed"):
            check(CASES[name], pass_, "direct", layouts=LAYOUTS[layout], threads=threads)
    check(CASES[name], pass_, "direct", "f64", LAYOUTS["nhwc-plain-weight"])


@pytest.mark.parametrize("epilogue", [("bias",), ("residual",), ("relu",), ("bias", "residual", "relu")], ids="+".join)
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
def test_epilogue(pass_, epilogue):
    for name in ("columns", "two-sums", "few-channels-strided", "few-channels-stride-4"):
        for layout in ("nchw", "nhwc", "any"):
            check(CASES[name], pass_, "direct", layouts=LAYOUTS[layout], epilogue=epilogue)


@pytest.mark.parametrize(
    "text",
    [
        "n2c19h9w11 k34r3s3 u2 p1 f32 nchw16c",
        "n2c16h9w11 k48r3s3 u2 p1 f32 nchw16c>nhwc cpu bias+relu",
        "n1c40h7w9 k24r3s3 p1 f32 nhwc>nchw8c",
        "n1c24h7w20 k24r3s3 p1 f32 nchw8c cpu relu",
        "n1c90h6w6 k32r3s3 p1 f32 nchw16c>nchw16c res=nchw16c cpu residual+relu",
        "n1c3h21w23 k19r7s7 u2 p3 f32 nchw>nchw16c cpu bias",
        "n1c12h9w9 k20r3s3 p1 g2 f32 nchw8c>nchw16c",
        "n1c5h9w40 k3r3s3 p1 f64 nchw8c>nchw8c",
    ],
)
def test_blocked_layouts(text):
    _check_problem(f"conv2d.forward {text}")


@pytest.mark.parametrize("steps", ["pre=scale", "pre=relu", "pre=scale+relu"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "nchw16c"])
def test_prologue_leaves_the_padding_zero(layout, steps):
    _check_problem(f"conv2d.forward n2c35h8w19 k20r3s3 u2 p1 f32 {layout} cpu {steps}")


def _check_problem(text):
    problem = parse(text)
    (kernel,) = (k for k in registry.kernels(problem.op, problem.pass_) if k.name == "cpu:direct")
    assert kernel.supports(problem) is None
    rng = np.random.default_rng(1)
    for threads in (1, 2):
        arrays, scalars = draw.data(problem, "integers", rng)
        compare.assert_close(problem, raw.run(problem, kernel, arrays, scalars, threads), arrays, exact=True)
