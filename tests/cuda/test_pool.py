"""Pooling on the GPU: windows that overlap or not, vectors of channels and what has none, the edges of blocks."""

import numpy as np
import pytest

from pycv.kernels import reference

from .. import raw
from ..backend import parse
from .execution import assert_right, kernels

KINDS = (("avg_pool", ""), ("max_pool", "indices"), ("max_pool", "offsets"))
DTYPES = ("f32", "f64", "f16", "bf16")
WINDOWS = (
    "r3s3 o5x9 u2 p1",
    "r2s2 o5x9 u2",
    "r3s4 o10x15 p1x2",
    "r5s2 o4x6 u2x3 p2x1",  # rows in common, none in common along the width
    "r1s3 o10x6 u1x3",
)


def flags(kind):
    return "indices" if kind.endswith("max_pool") else ""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
@pytest.mark.parametrize("kind, flag", KINDS)
def test_windows_in_both_layouts(kind, flag, pass_, dtype):
    for window in WINDOWS:
        for shape, layout, offset in (("n2c3", "nchw", 1), ("n2c16", "nhwc", 0), ("n1c5", "nhwc", 0)):
            text = f"{kind}2d.{pass_} {shape}h10w17 {window} {dtype} {layout} cpu {flag}"
            assert_right(text, kinds=["normal"], offset=offset)


@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
@pytest.mark.parametrize(
    "text",
    [
        "avg_pool2d.{} n2c3h9w8 r3s3 o5x5 u2 p1 f32 nchw cpu exclude_pad",  # the last window hangs over (ceil_mode)
        "avg_pool2d.{} n1c8h9w8 r3s3 o5x5 u2 p1 f32 nhwc cpu exclude_pad+divisor5",
        "avg_pool1d.{} n2c3w40 s8 o17 u2 p1 f32 nchw cpu",
        "avg_pool3d.{} n2c3d5h6w7 t3r2s3 o3x5x4 u2x1x2 p1x0x1 f64 nhwc cpu",
        "max_pool1d.{} n2c3w40 s4 o11 u3 d3 f32 nchw cpu indices",
        "max_pool2d.{} n2c4h12w13 r3s2 o5x9 u2x1 p1 d2x3 f32 nhwc cpu indices",
        "max_pool3d.{} n2c2d5h6w7 t3r2s3 o3x5x4 u2x1x2 p1x0x1 f32 nchw cpu indices",
        "max_pool3d.{} n1c8d4h5w6 t2r3s3 o3x5x6 p0x1x1 f32 nhwc cpu indices",
        "max_pool2d.{} n3c6h7w9 r3s3 o4x5 u2 p1 f32 nchw/500>nhwc/300/9 cpu indices",
        "max_pool2d.{} n3c8h7w9 r3s3 o4x5 u2 p1 f32 nhwc/800/12>nhwc/300/12 cpu indices",
        "max_pool2d.{} n1c2h1w700 r1s2 o1x350 u1x2 f32 nchw cpu indices",  # more than a block
        "max_pool1d.{} n2c3w40 s4 o11 u3 d3 f32 nchw cpu offsets",
        "max_pool2d.{} n2c4h12w13 r3s2 o5x9 u2x1 p1 d2x3 f32 nhwc cpu offsets",
        "max_pool2d.{} n2c3h6w7 r3s3 o6x7 p1 f64 nhwc cpu offsets",  # no vector of offsets
        "max_pool3d.{} n2c2d5h6w7 t3r2s3 o3x5x4 u2x1x2 p1x0x1 f32 nchw cpu offsets",
        "max_pool3d.{} n1c8d4h5w6 t2r3s3 o3x5x6 p0x1x1 bf16 nhwc cpu offsets",
        "max_pool3d.{} n1c2d9h7w9 t3r3s3 o5x5x5 u1x1x2 p1 d2x1x1 f32 nchw cpu offsets",
        "max_pool1d.{} n1c2w270 s256 o31 u9 p128 f32 nchw cpu offsets",  # the largest window
        "avg_pool2d.{} n3c32h8w9 r2s2 o7x8 f32 nhwc cpu",
        "max_pool2d.{} n0c3h4w4 r2s2 o2x2 u2 f32 nchw cpu indices",
    ],
)
def test_geometry(text, pass_):
    assert_right(text.format(pass_), kinds=["integers", "nonfinite" if "max" in text else "normal"])


@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
@pytest.mark.parametrize("kind", ["adaptive_max_pool", "adaptive_avg_pool"])
def test_adaptive(kind, pass_):
    for shape, layout in (("n2c3", "nchw"), ("n1c8", "nhwc")):
        for size, out in (
            ("h7w5", "3x4"), ("h6w8", "3x2"), ("h5w6", "1x1"), ("h3w2", "5x3"), ("h7w9", "7x9"), ("h7w5", "0x2"),
        ):  # fmt: skip
            text = f"{kind}2d.{pass_} {shape}{size} o{out} f32 {layout} cpu {flags(kind)}"
            assert_right(text, kinds=["normal"])


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_ties_and_windows_of_minus_infinity(dtype, layout):
    for flags in ("indices", "offsets", ""):
        for seed in range(3):  # integers: ties in every window
            text = f"max_pool2d.forward n2c8h7w9 r3s3 o4x5 u2 p1 {dtype} {layout} cpu {flags}"
            assert_right(text, kinds=["integers", "nonfinite"], seed=seed, orders=["forward"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_windows_that_take_a_warp(dtype):
    """Lanes end within a row, and rows within the lanes; ties and NaN between lanes."""
    for text in (
        "adaptive_{}_pool2d.forward n2c5h7w9 o1x1",
        "adaptive_{}_pool2d.forward n1c3h20w41 o3x2",
        "{}_pool2d.forward n1c3h13w29 r6s7 o2x4 u6x7 p3x2",
        "{}_pool3d.forward n2c1d4h8w6 t4r8s2 o1x1x3 u4x8x2",
        "{}_pool3d.forward n1c2d6h9w10 t3r4s4 o2x2x3 u3x5x4 p1x2x1",
    ):
        for kind, flags in (("avg", ""), ("max", "indices"), ("max", "offsets"), ("max", "")):
            if flags == "offsets" and text.startswith("adaptive"):
                continue
            kinds = ["normal"] if kind == "avg" else ["integers", "nonfinite"]
            assert_right(f"{text.format(kind)} {dtype} nchw cpu {flags}", kinds=kinds)
    for seed in range(5):
        for flags in ("indices", "offsets"):
            text = f"max_pool2d.forward n3c4h20w23 r5s7 o3x2 u6 p2x3 d2 {dtype} nchw cpu {flags}"
            assert_right(text, kinds=["nonfinite"], seed=seed, orders=["forward"])


def test_indices_that_several_windows_share():
    """An expanded gradient: an index need not lie in the windows that it stands for."""
    assert_right("max_pool2d.grad_input n2c8h6w6 r2s2 o3x3 u2 f32 nhwc>nhwc/8/0 cpu indices")
    assert_right("max_pool2d.grad_input n2c8h6w6 r2s2 o3x3 u2 f32 nchw>nhwc/0/8 cpu indices")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", ["r2s2 u2", "r3s3 u2", "r3s3 u2 p1", "r3s3 p1"])
def test_rows_in_vectors(window, dtype):
    """Rows that begin at multiples of 16 bytes, 8, or less; that end anywhere in a segment; windows beyond them."""
    stride, padding = 2 if "u2" in window else 1, 1 if "p1" in window else 0
    filter_ = int(window[1])
    widths = range(16 * stride, 16 * stride + 9) if dtype in ("f16", "bf16") else range(8 * stride, 8 * stride + 5)
    for index, width in enumerate(widths):
        last = -(-(width + 2 * padding - filter_) // stride)  # as in ceil_mode
        last -= last * stride >= width + padding
        floor = (width + 2 * padding - filter_) // stride
        height, rows = 7, (7 + 2 * padding - filter_) // stride + 1
        size = f"n2c2h{height}w{width} {window} o{rows}x{(last if index % 2 else floor) + 1} {dtype}"
        for kind, flag in KINDS:
            for pass_ in ("forward", "grad_input"):
                layout = f"nchw/{2 * height * width + 8 * (index % 3)}" if pass_ == "forward" else "nchw"
                data = ["nonfinite"] if kind == "max_pool" and pass_ == "forward" else ["normal"]
                words = {"avg_pool": "exclude_pad" if index % 2 else ""}.get(kind, flag)
                text = f"{kind}2d.{pass_} {size} {layout} cpu {words}"
                assert_right(text, kinds=data, orders=["forward"], offset=4 * (index % 3))


@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
@pytest.mark.parametrize(
    "text",
    [
        "max_pool1d.{} n3c5w400 s3 o200 u2 p1 f32 nchw cpu indices",  # more than a block
        "avg_pool1d.{} n3c5w400 s3 o400 p1 f16 nchw cpu",
        "max_pool3d.{} n1c2d5h6w24 t3r2s3 o3x3x12 u2x2x2 p1x0x1 f32 nchw cpu offsets",
        "max_pool3d.{} n1c2d5h6w24 t3r2s3 o3x3x12 u2x2x2 p1x0x1 bf16 nchw cpu indices",
        "avg_pool3d.{} n1c2d5h6w24 t3r2s3 o3x3x12 u2x2x2 p1x0x1 f32 nchw cpu exclude_pad",
        "max_pool2d.{} n1c2h12w32 r3s3 o4x16 u3x2 p1 d2x1 f16 nchw cpu offsets",  # dilated along the height alone
        "avg_pool2d.{} n1c2h9w24 r3s2 o5x12 u2 p1x0 f64 nchw cpu divisor5",
        "max_pool2d.{} n2c3h9w24 r3s3 o5x12 u2 p1 f32 nhwc>nchw cpu offsets",  # not by rows
        "max_pool2d.{} n2c3h9w24 r3s3 o5x12 u2 p1 f32 nchw>nhwc cpu offsets",
        "adaptive_avg_pool2d.{} n2c3h9w24 o3x12 f32 nchw cpu",  # windows of 3x2
        "adaptive_max_pool2d.{} n2c3h9w24 o4x12 f32 nchw cpu indices",  # of several heights
    ],
)
def test_geometry_of_rows_in_vectors(text, pass_):
    assert_right(text.format(pass_), kinds=["integers", "nonfinite" if "max" in text else "normal"])


@pytest.mark.parametrize("flag", ["indices", "offsets"])
def test_rows_of_minus_infinity(flag):
    """Each window of a segment names its first element inside: behind the padding at the left edge."""
    problem = parse(f"max_pool2d.forward n1c1h5w16 r3s3 o3x8 u2 p1 f32 nchw cpu {flag}")
    (kernel,) = kernels(problem)
    arrays = {"input": np.full((1, 1, 5, 16), -np.inf)}
    computed, expected = raw.run(problem, kernel, arrays, {}, offset=0), reference.run(problem, arrays)
    assert expected["indices"].any()
    np.testing.assert_array_equal(computed["indices"], expected["indices"])
