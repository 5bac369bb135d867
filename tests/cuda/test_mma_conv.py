"""Convolution on tensor cores by mma.sync: edges of tiles, channels that fill no vector, layouts, phases, parts."""

from itertools import product

import numpy as np
import pytest
import torch

from pycv import functional, registry, use
from pycv.kernels import reference

from .. import draw, raw
from ..backend import parse
from .execution import assert_right, kernels

PASSES = ("forward", "grad_input", "grad_weight")
ARITHMETICS = [("f16", ""), ("bf16", ""), ("f32", "/3xtf32"), ("f32", "/tf32")]
LAYOUTS = ("nhwc w=nhwc", "nchw")


def right(text: str, dtype: str, variant: str = "", passes=PASSES, epilogue: str = "bias+relu", **how) -> None:
    """A problem in several passes, with an epilogue where there is one."""
    for pass_ in passes:
        steps = "" if pass_ == "grad_weight" else f" {epilogue}"
        problem = text.replace("conv2d", f"conv2d.{pass_}").replace("DTYPE", dtype) + steps
        assert_right(problem, f"mma_sync{variant}", **how)


def some_of(*items) -> list:
    """Every combination, but all of them only in the long run."""
    return [
        pytest.param(*combination, marks=() if number % 5 == 0 else pytest.mark.full)
        for number, combination in enumerate(product(*items))
    ]


@pytest.mark.parametrize(("dtype", "variant"), ARITHMETICS)
def test_every_arithmetic_and_layout(dtype, variant):
    for layout in ("nchw", "nhwc w=nhwc", "nchw>nhwc w=nhwc", "nhwc>nchw"):
        right(f"conv2d n2c10h9w11 k34r3s3 u2x1 p1 g2 DTYPE {layout} cpu", dtype, variant, orders=["reverse"])


@pytest.mark.parametrize(("channels", "layout", "arithmetic"), some_of(
    ((1, 1), (3, 31), (8, 65), (33, 64), (64, 3), (65, 72)), LAYOUTS, ARITHMETICS,
))  # fmt: skip
def test_channels_around_vectors_and_tiles(channels, layout, arithmetic):
    c, k = channels
    right(f"conv2d n1c{c}h5w6 k{k}r2s3 p1 DTYPE {layout} cpu", *arithmetic)


@pytest.mark.parametrize(("size", "arithmetic"), some_of(((1, 1, 63), (1, 8, 8), (3, 1, 43), (2, 9, 8)), ARITHMETICS))
def test_positions_around_the_height_of_a_tile(size, arithmetic):
    n, h, w = size
    right(f"conv2d n{n}c8h{h}w{w} k8r3s3 p1 DTYPE nhwc w=nhwc cpu", *arithmetic)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(("dtype", "variant"), ARITHMETICS)
def test_vectors_and_what_is_off_alignment(dtype, variant, offset):
    right("conv2d n2c24h8w9 k40r1s1 DTYPE nhwc w=nhwc cpu", dtype, variant, offset=offset, kinds=["normal"])
    right("conv2d n1c16h6w7 k16r3s3 p1 g2 DTYPE nhwc w=nhwc cpu", dtype, variant, offset=offset, kinds=["normal"])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("limit", [0, 200_000, 2**28])
def test_parts_of_the_depth(limit, layout):
    for pass_, text in (
        ("forward", "n1c200h4w4 k5r3s3 p1"),
        ("grad_input", "n1c3h9w9 k70r5s5 u2 p2"),
        ("grad_weight", "n3c5h13w14 k6r3s3"),
    ):
        steps = "cpu" if pass_ == "grad_weight" else f"res={layout[:4]} cpu bias+residual+relu"
        assert_right(f"conv2d.{pass_} {text} bf16 {layout} {steps}", "mma_sync", workspace_limit=limit)


def test_the_workspace():
    """Parts stay within the limit, the transposed tensors are needed anyway: test_workspace.py."""
    problem = parse("conv2d.grad_weight n8c16h32w32 k16r3s3 p1 bf16 nhwc cpu")
    (kernel,) = kernels(problem, "mma_sync")
    sizes = [kernel.plan(problem, 1, limit).workspace_bytes for limit in (0, 10**6, 10**9)]
    assert sizes[0] == 0 < sizes[1] <= 10**6 < sizes[2] <= 10**9
    problem = parse("conv2d.forward n2c20h16w16 k16r3s3 p1 bf16 nchw>nhwc cpu")
    assert kernel.plan(problem, 1, 0).workspace_bytes == 2 * 16 * 16 * 24 * 2


@pytest.mark.parametrize("windows", ["u2 p1", "u3x2 p2x0", "u4 p0", "u2 p1 d2", "u3 p2 d2", "u5 p3 d3x1", "u2 p1 o4"])
def test_phases_of_a_strided_gradient(windows):
    """Strides beyond the filter leave phases without taps; common factors of stride and dilation too."""
    right(f"conv2d n2c6h11w13 k5r3s2 {windows} DTYPE nhwc w=nhwc cpu", "f16", kinds=["integers"])


def test_one_and_three_dimensions():
    for pass_, layout in product(PASSES, LAYOUTS):
        assert_right(f"conv1d.{pass_} n2c6w70 k8s5 u2 p2 d2 g2 bf16 {layout} cpu", "mma_sync", kinds=["normal"])
        assert_right(
            f"conv3d.{pass_} n2c4d5h6w7 k6t2r3s2 u1x2x1 p0x1x1 d2x1x1 f32 {layout} cpu", "mma_sync/3xtf32",
            kinds=["normal"],
        )  # fmt: skip


def test_slices_of_wider_tensors():
    """Pixels and images further apart than their channels."""
    right("conv2d n2c8h5w6 k16r3s3 p1 DTYPE nhwc/960/24>nhwc/1280/32 w=nhwc cpu", "bf16")
    right("conv2d n2c8h5w6 k12r3s3 p1 DTYPE nchw/300>nchw/500 cpu", "f16")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_epilogue_with_a_residual(layout):
    text = f"conv2d n2c9h5w6 k33r3s3 p1 DTYPE {layout} res=RES cpu"
    for residual in ("nchw", "nhwc"):
        right(text.replace("RES", residual), "f16", passes=PASSES[:2], epilogue="bias+residual+relu")


PROLOGUES = ("scale", "relu", "scale+relu")


@pytest.mark.parametrize("steps", PROLOGUES)
@pytest.mark.parametrize(("dtype", "variant"), ARITHMETICS)
def test_a_prologue_leaves_the_padding_zero(dtype, variant, steps):
    """Channels that fill no vector, groups, strides, dilation, a residual and relu behind; shifts are never 0."""
    for layout in LAYOUTS:
        text = f"conv2d.forward n2c20h7w9 k34r3s2 u2x1 p3x1 d1x2 g2 {dtype} {layout} res={layout[:4]} cpu"
        assert_right(f"{text} bias+residual+relu pre={steps}", f"mma_sync{variant}", orders=["reverse"])


@pytest.mark.parametrize("order", ["forward", "reverse", *(f"random:{seed}" for seed in range(3))])
@pytest.mark.parametrize("limit", [0, 2**28])
def test_a_prologue_in_every_order(order, limit):
    """More steps than stages, in one part and in several."""
    text = "conv2d.forward n1c200h4w4 k5r3s3 p1 bf16 nhwc cpu bias pre=scale+relu"
    assert_right(text, "mma_sync", orders=[order], workspace_limit=limit)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(("dtype", "variant"), ARITHMETICS)
def test_a_prologue_of_what_is_off_alignment(dtype, variant, offset):
    text = f"conv2d.forward n1c40h6w7 k16r3s3 p1 {dtype} nhwc w=nhwc cpu pre=scale+relu"
    assert_right(text, f"mma_sync{variant}", offset=offset, kinds=["normal"], orders=["forward"])


def test_a_prologue_sees_no_border():
    """Windows that lie in the border see 0, were relu(shift) infinite or not a number."""
    problem = parse("conv2d.forward n1c8h3w3 k8r3s3 p4 f16 nhwc cpu pre=scale+relu")
    (kernel,) = kernels(problem, "mma_sync")
    for shift in (np.inf, np.nan):
        arrays, scalars = draw.data(problem, "normal", np.random.default_rng(0))
        arrays["input_shift"] = np.full(8, shift)
        computed = raw.run(problem, kernel, arrays, scalars)["output"]
        outside = np.ones((9, 9), bool)
        outside[2:7, 2:7] = False
        assert (computed[..., outside] == 0).all() and not np.isfinite(computed[..., ~outside]).any()


# As many tiles as make larger ones worth while, the last ones ragged.
LARGE = {
    "forward": "n1c8h101w126 k250r1s1",
    "grad_input": "n1c250h101w126 k8r1s1",
    "grad_weight": "n1c1422h3w3 k250r3s3 p1",
}
FLAT = {
    "forward": "n1c8h131w130 k70r1s1",
    "grad_input": "n1c70h131w130 k8r1s1",
    "grad_weight": "n1c1890h3w3 k70r3s3 p1",
}
QUICK = [(LARGE, "forward", "bf16"), (FLAT, "grad_input", "f16"), (FLAT, "grad_weight", "bf16")]


@pytest.mark.parametrize(("sizes", "pass_", "arithmetic"), [
    pytest.param(*combination, marks=() if (*combination[:2], combination[2][0]) in QUICK else pytest.mark.full)
    for combination in product((LARGE, FLAT), PASSES, ARITHMETICS)
])  # fmt: skip
def test_tiles_of_every_shape(sizes, pass_, arithmetic):
    dtype, variant = arithmetic
    layout = LAYOUTS[dtype == "f16"]
    problem = f"conv2d.{pass_} {sizes[pass_]} {dtype} {layout} cpu"
    assert_right(problem, f"mma_sync{variant}", ["integers"], ["forward"], offset=0)


@pytest.mark.parametrize("text", [
    "forward n0c3h4w4 k5r3s3 p1 bf16 nchw cpu bias", "forward n2c0h4w4 k5r3s3 p1 bf16 nchw cpu bias",
    "forward n2c3h4w4 k0r3s3 p1 bf16 nchw cpu", "grad_input n0c3h4w4 k5r3s3 p1 bf16 nhwc cpu",
    "grad_input n2c3h4w4 k0r3s3 p1 bf16 nhwc cpu bias", "grad_weight n0c3h4w4 k5r3s3 p1 bf16 nchw cpu",
    "grad_weight n0c3h4w4 k5r3s3 p1 bf16 nhwc cpu",
])  # fmt: skip
def test_empty_problems(text):
    assert_right(f"conv2d.{text}", "mma_sync")


def error_of_3xtf32(text: str, weight_scale: float) -> float:
    """Against the largest element, on N(0, 1), in one part."""
    problem = parse(text)
    (kernel,) = kernels(problem, "mma_sync/3xtf32")
    arrays, scalars = draw.data(problem, "normal", np.random.default_rng(3))
    if "weight" in arrays:
        arrays["weight"] = (arrays["weight"] * weight_scale).astype(np.float32).astype(np.float64)
    (name,) = (computed := raw.run(problem, kernel, arrays, scalars, workspace_limit=0)).keys()
    expected = reference.run(problem, arrays)[name]
    return np.abs(computed[name] - expected).max() / np.abs(expected).max()


LONG_SUMS = {"forward": "n1c512h3w3 k16", "grad_input": "n1c16h3w3 k512", "grad_weight": "n2c8h48w48 k16"}


@pytest.mark.parametrize("pass_", PASSES)
def test_numeric_class(pass_):
    """3xTF32 stays below 1e-5 of the largest element, on N(0, 1) with He-scaled weights, by a margin in sums of 4608
    terms, too: what tensor cores cut off in each step does not add up."""
    short = f"conv2d.{pass_} n2c64h8w8 k64r3s3 p1 f32 nhwc w=nhwc cpu"
    assert error_of_3xtf32(short, np.sqrt(2 / (64 * 9))) <= 2e-6
    long = f"conv2d.{pass_} {LONG_SUMS[pass_]}r3s3 p1 f32 nhwc w=nhwc cpu"
    assert error_of_3xtf32(long, np.sqrt(2 / (512 * 9))) <= 3e-6


def test_3xtf32_has_the_range_of_fp32():
    """All but the two largest numbers, which round to 2^128; infinities are what fp32 makes of them."""
    problem = parse("conv2d.forward n1c8h2w4 k5r1s1 f32 nhwc w=nhwc cpu")
    (kernel,) = kernels(problem, "mma_sync/3xtf32")
    arrays, scalars = draw.data(problem, "normal", np.random.default_rng(0))
    largest = 2.0**128 * (1 - 3 * 2**-24)
    ends = np.array([largest, -largest, largest * (1 - 2**-12), np.inf, -np.inf, np.nan, 2.0**127, 1.0])
    arrays["input"] = np.zeros((1, 8, 2, 4))
    for pixel, value in enumerate(ends):
        arrays["input"][0, pixel, pixel // 4, pixel % 4] = value  # a channel of its own
    arrays["weight"] = np.clip(arrays["weight"], -1, 1)
    computed = raw.run(problem, kernel, arrays, scalars)["output"].reshape(5, 8)
    with np.errstate(invalid="ignore"):
        expected = arrays["weight"].reshape(5, 8) * ends
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(computed[~finite], expected[~finite])
    np.testing.assert_allclose(computed[finite], expected[finite], rtol=2**-21)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_layers_of_16_bits_reach_these_kernels(dtype):
    """In every pass, without a copy of what is nhwc already."""
    x = torch.randn(2, 24, 6, 7, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    w = torch.randn(32, 24, 3, 3, dtype=dtype, requires_grad=True)
    with use(backend="cuda", algorithm="mma_sync"), registry.record() as calls:
        y = functional.conv2d(x, w, padding=1)
        y.backward(torch.ones_like(y))
    ran = {call.choice.problem.pass_: call.choice.kernel.algorithm for call in calls}
    assert ran == dict.fromkeys(PASSES, "mma_sync") and y.is_contiguous(memory_format=torch.channels_last)
    expected = torch.nn.functional.conv2d(x.double(), w.double(), padding=1)
    assert (y - expected).abs().max() <= 2**-6 * expected.abs().max()
