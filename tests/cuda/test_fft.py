"""Convolution by Fourier transforms on the GPU: every pass, filters and tiles of many sizes, layouts, epilogues.

A transform spreads rounding errors over its tile: as tests/compare.py has it for what is not strict, the bound of an
element is a multiple of the rounding error of the largest sum of absolute products in its plane, though a smaller one.
"""

import numpy as np
import pytest
import torch

import pycv
from pycv import functional as PF
from pycv.kernels import reference
from pycv.problem import ConvProblem

from .. import compare, raw
from ..backend import parse
from ..cpu.test_winograd import arrays_of
from ..dtypes import COMPUTED_IN, rounded
from .execution import ORDERS, kernels, schedule

PASSES = ("forward", "grad_input", "grad_weight")
ROUNDINGS = 6  # of the largest sum of its plane


def check(text: str, limit: int = 2**28, orders=("forward",), seed: int = 0) -> None:
    problem = parse(text)
    assert isinstance(problem, ConvProblem)
    (kernel,) = kernels(problem, "fft")
    arrays = {n: rounded(values, problem.dtype).astype(float) for n, values in arrays_of(problem, seed).items()}
    expected = reference.run(problem, arrays)
    bounds = compare.magnitudes(problem, arrays, expected)
    for order in orders:
        schedule(order)
        computed = raw.run(problem, kernel, arrays, {}, 1, limit)
        for name, values in computed.items():
            axes = tuple(range(2, values.ndim))
            largest = bounds[name].max(axes, keepdims=True) if values.size else bounds[name]
            computing = compare.EPSILONS[COMPUTED_IN.get(problem.dtype, problem.dtype)]
            storing = compare.EPSILONS[problem.dtype] * np.abs(expected[name])
            bound = computing * (ROUNDINGS * largest + 2 * np.abs(expected[name])) + storing
            compare.assert_elements(f"{text} {order}: {name}", values, expected[name], bound)


@pytest.mark.parametrize("pass_", PASSES)
def test_every_filter_size(pass_):
    """1x1 to 33x33, odd and even, on images that are no multiple of a tile; every second one rectangular."""
    for r in (*range(1, 10), 15, 16, 17, 33):
        other = r if r % 2 else 35 - r
        sizes = f"n1c2h{r + 5 + r % 4}w{other + 3 + r % 7} k3r{r}s{other} p{r // 2}x{other // 3}"
        check(f"conv2d.{pass_} {sizes} {'f64' if r % 5 == 0 else 'f32'} {'nhwc' if r % 3 else 'nchw'} cpu", seed=r)


@pytest.mark.parametrize("pass_", PASSES)
def test_every_tile_edge(pass_):
    """Images from one pixel to several tiles, and channels around what a block takes."""
    for index, size in enumerate((1, 2, 3, 5, 12, 13, 32, 33)):
        other = (size * 7 + index) % 29 + 1
        check(f"conv2d.{pass_} n2c2h{size}w{other} k3r5s5 p2 f32 nchw cpu", seed=index, orders=ORDERS)
    for index, channels in enumerate((1, 2, 4, 7, 8, 9, 17)):
        layout = "nhwc" if index % 2 else "nchw"
        check(f"conv2d.{pass_} n1c{channels}h9w{6 + index} k{18 - channels}r4s4 p2 f32 {layout} cpu", orders=ORDERS)


@pytest.mark.parametrize("pass_", PASSES)
def test_large_filters_and_images(pass_):
    check(f"conv2d.{pass_} n1c2h40w45 k3r38s51 p19x25 f32 nchw cpu")  # larger than the image
    check(f"conv2d.{pass_} n1c2h70w3 k2r65s1 f32 nchw cpu")
    check(f"conv1d.{pass_} n1c3w700 k2s90 p40 f32 nchw cpu")
    check(f"conv2d.{pass_} n2c5h75w61 k4r9s9 p4 f32 nhwc cpu", limit=2**20)  # many tiles


@pytest.mark.parametrize("pass_", PASSES)
def test_windows(pass_):
    for window in (
        "u2 p2", "u3 p1", "u1x2 p0", "d2 p3", "d2x1 p2", "u2 d3 p4", "p5", "p7x0", "o4x15 p2", "o14x3 p2", "u2 o9 p1",
    ):  # fmt: skip
        problem = parse(text := f"conv2d.{pass_} n2c3h11w12 k2r5s4 {window} f64 nchw cpu")
        if kernels(problem, "fft"):
            check(text)
        else:
            assert "d3" in window


@pytest.mark.parametrize("pass_", PASSES)
def test_groups_and_layouts(pass_):
    for layout in ("nchw", "nhwc", "nchw>nhwc", "nhwc/9000/37>nchw/9000", "nchw w=nhwc"):
        check(f"conv2d.{pass_} n2c6h9w8 k9r5s5 p2 g3 f32 {layout} cpu")
        check(f"conv2d.{pass_} n1c4h9w8 k4r5s6 p2 g4 f32 {layout} cpu")


@pytest.mark.parametrize("epilogue", ["bias", "relu", "residual", "bias+residual+relu"])
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
def test_epilogue(pass_, epilogue):
    for layout in ("nchw", "nhwc"):
        for residual in ("nchw", "nhwc") if "residual" in epilogue else ("",):
            rest = f"{layout}{' res=' + residual if residual else ''} cpu {epilogue}"
            check(f"conv2d.{pass_} n2c6h9w8 k8r5s4 p2 g2 f64 {rest}")


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("pass_", PASSES)
def test_storage_types(pass_, dtype):
    """Rounded once, at the end: after the sum over all tiles, the bias and the residual."""
    rest = "" if pass_ == "grad_weight" else " bias+residual+relu"
    for layout in ("nchw", "nhwc"):
        text = f"conv2d.{pass_} n2c6h17w13 k9r5s4 u2 p2 g3 {dtype} {layout}{' res=' + layout if rest else ''} cpu{rest}"
        for limit in (2**28, 2**16):
            check(text, limit, orders=ORDERS)
    check(f"conv1d.{pass_} n2c3w150 k2s33 p16 {dtype} nchw cpu")


@pytest.mark.parametrize("pass_", PASSES)
def test_little_workspace(pass_):
    """Some tiles, and some filters, at a time."""
    for limit in (0, 2**16):
        check(f"conv2d.{pass_} n2c3h15w11 k5r5s5 p2 f32 nchw cpu", limit)
        check(f"conv2d.{pass_} n1c6h9w10 k4r3s3 p1 g2 f64 nhwc cpu", limit)
    problem = parse(f"conv2d.{pass_} n2c9h31w30 k10r5s5 p2 f32 nchw cpu")
    (kernel,) = kernels(problem, "fft")
    assert kernel.plan(problem, 1, 2**17).workspace_bytes <= 2**17  # type: ignore[misc]


def test_empty():
    for pass_ in PASSES:
        for sizes in ("n0c3h5w5 k4", "n2c0h5w5 k4", "n2c3h5w5 k0"):
            epilogue = " bias+relu" if pass_ != "grad_weight" else ""
            check(f"conv2d.{pass_} {sizes}r3s3 p1 f32 nchw cpu{epilogue}")


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("r", [1, 2, 3, 9])
def test_non_finite_values_stay_in_their_tiles(r, value):
    for size, epilogue in ((6, ""), (17, " relu"), (150, "")):
        problem = parse(f"conv2d.forward n2c3h9w{size} k2r{r}s{r} p{r // 2} f32 nchw cpu{epilogue}")
        (kernel,) = kernels(problem, "fft")
        arrays = arrays_of(problem, seed=r)
        arrays["input"][0, 2, 4, 2] = value
        finite = np.isfinite(raw.run(problem, kernel, arrays, {})["output"])
        direct = reference.run(problem, arrays)["output"]
        assert not finite[~np.isfinite(direct)].any()
        assert finite[1].all()
        if size == 150:
            assert finite[0, ..., -20:].all()


@pytest.mark.parametrize("pass_", PASSES)
def test_what_no_window_reads_is_not_transformed(pass_):
    """Beyond the last window, though within its tile; and gradients of windows that lie in the padding."""
    for sizes, name in (("n1c2h9w9 k3r3s3 o5x3", "input"), ("n1c2h5w3 k3r3s3 o9x9", "output")):
        problem = parse(f"conv2d.{pass_} {sizes} p0 f32 nchw cpu")
        (kernel,) = kernels(problem, "fft")
        arrays = arrays_of(problem)
        if name in arrays:
            arrays[name][..., 7:, :] = np.nan
            arrays[name][..., 5:] = np.nan
        for values in raw.run(problem, kernel, arrays, {}).values():
            assert np.isfinite(values).all()


def test_relu_hides_no_overflow():
    """A wave that is so large that its spectrum overflows, to infinities of whatever sign."""
    problem = parse("conv2d.forward n1c1h12w12 k8r3s3 p1 f32 nchw cpu relu")
    (kernel,) = kernels(problem, "fft")
    for period in (2, 4, 8, 16):
        for scale in (1e36, 5e36, 2e37):
            arrays = arrays_of(problem)
            wave = np.cos(2 * np.pi / period * np.add.outer(np.arange(12), np.arange(12)))
            arrays["input"][0, 0] = rounded(wave * scale, "f32")
            computed = raw.run(problem, kernel, arrays, {})["output"]
            wrong = np.abs(computed - reference.run(problem, arrays)["output"]) > 1e-4 * scale
            assert not (np.isfinite(computed) & wrong).any()


@pytest.mark.parametrize("pass_", PASSES)
def test_numeric_class(pass_):
    """Error against the largest output, N(0, 1) data and He-scaled weights: far below 1e-5."""
    for sizes in ("c40h14w14 k6r3s3 p1", "c8h30w30 k4r31s31 p15", "c4h40w40 k4r21s21 p10 g4"):
        problem = parse(f"conv2d.{pass_} n1{sizes} f32 nchw cpu")
        arrays = arrays_of(problem, seed=4)
        if "weight" in arrays:
            scale = (2 / arrays["weight"][0].size) ** 0.5
            arrays["weight"] = rounded(arrays["weight"] * scale, "f32").astype(float)
        (kernel,) = kernels(problem, "fft")
        for name, values in raw.run(problem, kernel, arrays, {}).items():
            expected = reference.run(problem, arrays)[name]
            assert np.abs(values - expected).max() <= 3e-6 * np.abs(expected).max(), sizes


def test_through_the_op():
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    w = torch.randn(6, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    with pycv.use(backend="cuda", algorithm="fft"), pycv.registry.record() as calls:
        y = PF.conv2d(x, w, padding=2, stride=2, groups=2)
        grads = torch.autograd.grad(y, (x, w), torch.ones_like(y))
    assert [call.choice.kernel.name for call in calls] == ["cuda:fft"] * 3
    expected = torch.nn.functional.conv2d(x, w, padding=2, stride=2, groups=2)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(grads, torch.autograd.grad(expected, (x, w), torch.ones_like(y)))


@pytest.mark.full
def test_gradients():
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    with pycv.use(backend="cuda", algorithm="fft"):
        assert torch.autograd.gradcheck(lambda x, w: PF.conv2d(x, w, padding=1), (x, w))
        assert torch.autograd.gradgradcheck(lambda x, w: PF.conv2d(x, w, padding=1), (x, w))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("conv2d.forward n1c2h9w9 k3r2s2 u3 f32", "leave out"),
        ("conv2d.forward n1c2h200w200 k3r150s150 f32", "extent 150x150: no tile"),
        ("conv2d.forward n1c2h200w200 k3r9s9 d9 f64", "extent 73x73: no tile"),
    ],
)
def test_refusals(text, reason):
    problem = parse(text)
    kernel = next(k for k in pycv.registry.kernels(problem.op, problem.pass_) if k.name == "cuda:fft")
    assert reason in (kernel.supports(problem) or "")
