"""Convolution on the GPU: edges of tiles in every dimension, splits of the depth, phases, lanes, every dtype."""

from dataclasses import replace

import pytest

import pycv
from pycv import registry, settings
from pycv.kernels import cuda

from ..backend import parse
from .execution import assert_right, kernels

PASSES = ("forward", "grad_input", "grad_weight")
DTYPES = ("f32", "f64", "f16", "bf16")


def right(text: str, algorithm: str, passes=PASSES, **how) -> None:
    """A problem in several passes; the layout of the filters follows that of the images, epilogues where they exist."""
    for pass_ in passes:
        steps = "" if pass_ == "grad_weight" else " bias+relu"
        assert_right(text.replace("conv2d", f"conv2d.{pass_}") + steps, algorithm, **how)


# --------------------------------------------------------------------------------------------- implicit_gemm


@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc"])
@pytest.mark.parametrize("pass_", PASSES)
def test_channels_around_the_widths_of_tiles(pass_, layout):
    for c, k in ((3, 31), (31, 33), (33, 64), (64, 3), (17, 65), (65, 129), (129, 32)):
        assert_right(f"conv2d.{pass_} n1c{c}h5w6 k{k}r2s3 p1 f32 {layout} cpu", "implicit_gemm")


@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc"])
@pytest.mark.parametrize("pass_", PASSES)
def test_positions_around_the_height_of_a_tile(pass_, layout):
    for n, h, w in ((1, 1, 127), (1, 8, 16), (3, 1, 43), (1, 15, 17), (2, 16, 16)):
        assert_right(f"conv2d.{pass_} n{n}c5h{h}w{w} k7r3s3 p1 f32 {layout} cpu", "implicit_gemm")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc", "nchw>nhwc w=nhwc", "nhwc>nchw"])
def test_every_dtype_and_layout(layout, dtype):
    right(f"conv2d n2c10h9w11 k34r3s3 u2x1 p1 g2 {dtype} {layout} cpu", "implicit_gemm")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc"])
def test_vectors_and_what_is_off_alignment(layout, dtype):
    for offset in (0, 1):
        right(f"conv2d n2c24h8w12 k40r1s1 {dtype} {layout} cpu", "implicit_gemm", offset=offset)
        right(f"conv2d n1c16h6w7 k16r3s3 p1 g2 {dtype} {layout} cpu", "implicit_gemm", offset=offset)
    right(f"conv2d n2c24h5w5 k33r1s1 {dtype} {layout} cpu", "implicit_gemm", offset=0)
    right(f"conv2d n2c24h6w6 k40r1s1 u2 {dtype} {layout} cpu", "implicit_gemm", offset=0)


@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc"])
@pytest.mark.parametrize("limit", [0, 100_000, 2**28])
def test_splits_of_the_depth(limit, layout):
    for pass_, text in (
        ("forward", "n1c70h4w4 k5r3s3 p1"),
        ("grad_input", "n1c3h9w9 k70r5s5 u2 p2"),
        ("grad_weight", "n3c5h13w14 k6r3s3"),
    ):
        steps = "cpu" if pass_ == "grad_weight" else f"res={layout[:4]} cpu bias+residual+relu"
        assert_right(f"conv2d.{pass_} {text} f32 {layout} {steps}", "implicit_gemm", workspace_limit=limit)


def test_splits_use_the_workspace_they_are_given():
    problem = parse("conv2d.grad_weight n8c16h32w32 k16r3s3 p1 f32 nchw cpu")
    (kernel,) = kernels(problem, "implicit_gemm")
    sizes = [kernel.plan(problem, 1, limit).workspace_bytes for limit in (0, 10**6, 10**9)]
    assert sizes[0] == 0 < sizes[1] <= 10**6 < sizes[2] <= 10**9


@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc"])
@pytest.mark.parametrize("windows", ["u2 p1", "u3x2 p2x0", "u4 p0", "u2 p1 d2", "u3 p2 d2", "u5 p3 d3x1", "u2 p1 o4"])
def test_phases_of_a_strided_gradient(windows, layout):
    """Strides beyond the filter leave phases without taps; common factors of stride and dilation too."""
    right(f"conv2d n2c6h11w13 k5r3s2 {windows} f32 {layout} cpu", "implicit_gemm")


def test_one_and_three_dimensions():
    for pass_ in PASSES:
        for layout in ("nchw", "nhwc w=nhwc"):
            assert_right(f"conv1d.{pass_} n2c6w150 k8s5 u2 p2 d2 g2 f32 {layout} cpu", "implicit_gemm")
            assert_right(f"conv3d.{pass_} n2c4d5h6w7 k6t2r3s2 u1x2x1 p0x1x1 d2x1x1 f32 {layout} cpu", "implicit_gemm")


def test_slices_of_wider_tensors():
    """Pixels and images further apart than their channels."""
    right("conv2d n2c8h5w6 k12r3s3 p1 f32 nhwc/900/20>nhwc/1000/30 w=nhwc cpu", "implicit_gemm")
    right("conv2d n2c8h5w6 k12r3s3 p1 f32 nchw/300>nchw/500 cpu", "implicit_gemm")


def test_depthwise():
    right("conv2d n2c37h6w5 k74r3s3 p1 g37 f32 nchw cpu", "implicit_gemm")
    right("conv2d n2c37h6w5 k37r3s3 u2 p1 g37 f16 nhwc w=nhwc cpu", "implicit_gemm")


# ---------------------------------------------------------------------------------------------------- direct


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc", "nchw>nhwc", "nhwc>nchw"])
def test_depthwise_and_thin_groups(layout, dtype):
    right(f"conv2d n2c37h9w8 k37r3s3 p1 g37 {dtype} {layout} cpu", "direct")
    right(f"conv2d n1c6h9w8 k12r3s2 u2 p1 g6 {dtype} {layout} cpu", "direct")
    right(f"conv2d n2c15h6w7 k27r2s3 p1 d2 g3 {dtype} {layout} cpu", "direct")


@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc"])
def test_channels_of_groups_around_the_vectors(layout):
    for c, k in ((1, 2), (2, 1), (4, 5), (5, 4), (8, 9), (16, 16)):
        right(f"conv2d n1c{2 * c}h5w6 k{2 * k}r3s3 p1 g2 f32 {layout} cpu", "direct")


@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc"])
def test_images_of_few_channels(layout):
    right(f"conv2d n2c3h19w21 k20r7s7 u2 p3 f32 {layout} cpu", "direct")
    right(f"conv2d n1c1h30w9 k33r5s5 f16 {layout} cpu", "direct")


STEM = "conv2d.forward n{}h{}w{} k{}{} {} {} cpu bias+relu"


@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc", "nchw>nhwc", "nhwc>nchw"])
def test_stems_around_the_edges_of_tiles(layout):
    """4 x 32 positions, 32 or 64 channels, filters that are staged in pieces."""
    for c, h, w, k, window in (
        (3, 9, 63, 64, "r7s7 u2 p3"), (1, 8, 32, 9, "r3s3 p1"), (4, 7, 31, 33, "r3s3 p1"),
        (3, 33, 121, 65, "r11s11 u4 p2"), (2, 3, 30, 96, "r1s5 p0x2 d1x3"), (3, 15, 40, 17, "r4s2 u3x1 p1x0 d2x1"),
        (3, 4, 33, 40, "r4s4 p2 o4x33"), (4, 12, 60, 24, "r3s2 u2 p1 o6x31"),
    ):  # fmt: skip
        assert_right(STEM.format(f"2c{c}", h, w, k, window, "f32", layout), "direct")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc"])
def test_stems_of_every_dtype(layout, dtype):
    for c, h, w, k, window in ((3, 8, 41, 40, "r3s5 u1x2 p1x2"), (4, 5, 33, 60, "r3s3 p1")):
        text = STEM.format(f"2c{c}", h, w, k, window, dtype, f"{layout} res=nhwc").replace("bias", "bias+residual")
        assert_right(text, "direct", offset=1)
    slices = STEM.format("2c3", 6, 34, 24, "r3s3 p1", dtype, "nhwc/2000/9>nchw/9000")  # of a concatenation
    assert_right(slices, "direct", orders=("forward", "random:3"))


@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc"])
def test_direct_positions_around_those_of_a_block(layout):
    for h, w in ((1, 31), (1, 33), (3, 43), (8, 16), (1, 129), (25, 41)):
        right(f"conv2d n1c3h{h}w{w} k3r1s3 p0x1 g3 f32 {layout} cpu", "direct")


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_of_depthwise_channels(dtype):
    for offset in (0, 1):
        for channels in (8, 12, 16):
            text = f"conv2d n2c{channels}h6w5 k{channels}r3s3 u2 p1 g{channels} {dtype} nhwc cpu"
            right(text, "direct", offset=offset)


@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc"])
@pytest.mark.parametrize("limit", [0, 1000, 2**28])
def test_splits_of_the_positions(limit, layout):
    problem = f"conv2d.grad_weight n3c4h50w48 k4r3s4 p1 g4 f32 {layout} cpu"
    assert_right(problem, "direct", workspace_limit=limit)


@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc"])
@pytest.mark.parametrize("windows", ["u3x2 p2x0", "u4 p0", "u3 p2 d2", "u2 p1 o4"])
def test_direct_over_phases(windows, layout):
    right(f"conv2d n2c6h11w13 k6r3s2 {windows} g6 f32 {layout} cpu", "direct")
    assert_right(f"conv3d.grad_input n1c2d5h6w7 k4t2r3s2 u1x2x1 p0x1x1 d2x1x1 g2 f32 {layout} cpu", "direct")
    assert_right(f"conv1d.grad_input n2c2w140 k2s4 u3 p1 g2 f32 {layout} cpu bias", "direct")


# ---------------------------------------------------------------------------------------------------- im2col


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc", "nchw>nhwc w=nhwc", "nhwc>nchw"])
@pytest.mark.parametrize("limit", [0, 20_000, 2**28])
def test_pieces_of_images(limit, layout, dtype):
    right(f"conv2d n3c6h7w9 k10r3s2 u2x1 p1 d1x2 g2 {dtype} {layout} cpu", "im2col", workspace_limit=limit)


def test_im2col_with_a_residual():
    for layout in ("nchw", "nhwc w=nhwc"):
        for pass_ in ("forward", "grad_input"):
            text = f"conv2d.{pass_} n2c5h6w7 k4r3s3 p1 f32 {layout} res={layout[:4]} cpu bias+residual+relu"
            assert_right(text, "im2col", workspace_limit=10_000)
    assert_right("conv3d.grad_input n1c2d5h6w7 k4t2r3s2 u1x2x1 p0x1x1 d2x1x1 f32 nchw cpu", "im2col")
    assert_right("conv1d.grad_weight n3c4w33 k6s5 u2 p2 f64 nchw cpu", "im2col")


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc w=nhwc", "nchw>nhwc w=nhwc", "nhwc>nchw"])
def test_im2col_of_storage_types(layout, dtype):
    """Gradients, too, are rounded once, however many pieces they are summed up from."""
    for limit in (0, 20_000, 2**28):
        right(f"conv2d n3c6h7w9 k10r3s2 u2x1 p1 d1x2 g2 {dtype} {layout} cpu", "im2col", workspace_limit=limit)
    text = f"conv2d.grad_input n2c5h6w7 k4r3s3 p1 {dtype} {layout} res=nchw cpu bias+residual+relu"
    assert_right(text, "im2col", workspace_limit=10_000)
    problem = parse(f"conv2d.grad_weight n3c6h20w20 k8r3s3 p1 {dtype} {layout} cpu")
    (kernel,) = kernels(problem, "im2col")
    assert kernel.plan(problem, 1, 2**16).workspace_bytes <= 2**16  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------------ all


@pytest.mark.parametrize("text", [
    "conv2d.forward n0c3h4w4 k5r3s3 p1 f32 nchw cpu bias", "conv2d.forward n2c0h4w4 k5r3s3 p1 f32 nchw cpu bias",
    "conv2d.forward n2c3h4w4 k0r3s3 p1 f32 nchw cpu", "conv2d.grad_input n0c3h4w4 k5r3s3 p1 f32 nhwc cpu",
    "conv2d.grad_input n2c3h4w4 k0r3s3 p1 f32 nhwc cpu bias", "conv2d.grad_weight n0c3h4w4 k5r3s3 p1 f32 nchw cpu",
    "conv2d.grad_weight n0c3h4w4 k5r3s3 p1 f16 nhwc cpu",
])  # fmt: skip
def test_empty_problems(text):
    assert_right(text)


def test_wide_groups_are_not_for_direct():
    problem = parse("conv2d.forward n1c34h4w4 k34r3s3 g2 f32 nchw cpu")
    reasons = {k.algorithm: k.supports(problem) for k in cuda.KERNELS if (k.op, k.pass_) == ("conv2d", "forward")}
    assert "17 and 17 channels per group" in reasons["direct"]
    assert reasons["implicit_gemm"] is None


def test_what_is_refused():
    for text, reason in (
        (f"conv1d.forward n1c1w{2**31} k1s1 f32 nchw cpu", "an axis of 2^30 or more positions"),
        ("conv2d.forward n1c8h4w4 k8r3s3 f32 nchw8c cpu", "layout nchw8c"),
    ):
        problem = parse(text)
        reasons = [k.supports(problem) for k in cuda.KERNELS if (k.op, k.pass_) == (problem.op, problem.pass_)]
        assert len(reasons) >= 2 and all(reason in (given or "") for given in reasons)


# -------------------------------------------------------------------------------------------------- prologue

PROLOGUES = ("scale", "relu", "scale+relu")


@pytest.mark.parametrize("steps", PROLOGUES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prologue_leaves_the_padding_zero(dtype, steps):
    """Channels along rows, lines and vectors of the tiles; splits; windows that are all padding."""
    for layout in ("nchw", "nhwc w=nhwc"):
        text = f"conv2d.forward n2c10h7w9 k34r3s2 u2x1 p3x1 d1x2 g2 {dtype} {layout} cpu bias+relu pre={steps}"
        assert_right(text, "implicit_gemm")
    assert_right(f"conv2d.forward n2c24h8w12 k40r1s1 {dtype} nchw cpu pre={steps}", "implicit_gemm", offset=0)
    assert_right(f"conv2d.forward n1c70h4w4 k5r3s3 p1 {dtype} nchw cpu pre={steps}", "implicit_gemm")


@pytest.mark.parametrize("steps", PROLOGUES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prologue_of_thin_groups(dtype, steps):
    for layout in ("nchw", "nhwc"):
        assert_right(f"conv2d.forward n2c15h6w7 k27r2s3 u2 p2 d2 g3 {dtype} {layout} cpu pre={steps}", "direct")
        assert_right(f"conv2d.forward n2c3h9w8 k20r3s3 u2 p1 {dtype} {layout} cpu relu pre={steps}", "direct")
    for offset in (0, 1):
        text = f"conv2d.forward n2c12h6w5 k12r3s3 u2 p1 g12 {dtype} nhwc cpu bias pre={steps}"
        assert_right(text, "direct", offset=offset)


def test_who_has_a_prologue():
    problem = parse("conv2d.forward n1c8h4w4 k8r3s3 p1 bf16 nhwc w=nhwc cpu pre=scale")
    reasons = {k.full_algorithm: k.supports(problem) for k in cuda.KERNELS if (k.op, k.pass_) == ("conv2d", "forward")}
    assert reasons["mma_sync"] is None and reasons["implicit_gemm"] is None and reasons["direct"] is None
    for name in ("wgmma", "winograd/f2", "im2col"):
        assert "prologue scale" in reasons[name] and "mma_sync" in reasons[name]
    with pycv.use(backend="cuda"):
        assert registry.choose(problem, settings.current(), 1).kernel.algorithm in ("mma_sync", "direct")
        wide = replace(problem, c=72, k=72)
        assert registry.choose(wide, settings.current(), 1).kernel.algorithm == "mma_sync"
