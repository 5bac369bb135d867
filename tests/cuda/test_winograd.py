"""Winograd convolution on the GPU: every pass and layout, sizes around its tiles, epilogues, groups, little workspace.

The comparison is that of tests/cpu/test_winograd.py: an element's bound is the tolerance times the largest sum of
absolute products within its tile.
"""

import numpy as np
import pytest
import torch

import pycv
from pycv import functional as PF
from pycv.kernels import reference

from .. import compare, raw
from ..backend import parse
from ..cpu.test_winograd import AMPLIFICATION, GRAD_WEIGHT_AMPLIFICATION, arrays_of, tile_maxima
from ..dtypes import rounded
from .execution import ORDERS, kernels, schedule

PASSES = ("forward", "grad_input", "grad_weight")
TILES = (2, 4)


def check(text: str, m: int, limit: int = 2**28, orders=("forward",), seed: int = 0, offset: int = 1) -> None:
    problem = parse(text)
    (kernel,) = (k for k in kernels(problem, "winograd") if k.variant == f"f{m}")
    arrays = {name: rounded(v, problem.dtype).astype(np.float64) for name, v in arrays_of(problem, seed).items()}
    expected = reference.run(problem, arrays)
    bounds = compare.magnitudes(problem, arrays, expected)
    amplification = GRAD_WEIGHT_AMPLIFICATION if problem.pass_ == "grad_weight" else AMPLIFICATION
    factor = amplification[m, 3] * compare.tolerance(problem.dtype, compare.reduction_length(problem))
    for order in orders:
        schedule(order)
        computed = raw.run(problem, kernel, arrays, {}, 1, limit, offset)
        for name, values in computed.items():
            bound = tile_maxima(bounds[name], 3 if name == "weight" else m)
            bound = factor * np.maximum(bound, compare.largest_products(problem, arrays))
            if problem.dtype in compare.COMPUTED_IN:
                bound = bound + compare.EPSILONS[problem.dtype] * np.abs(expected[name])
            nearest = rounded(expected[name], problem.dtype)
            compare.assert_elements(f"{problem} {kernel.name} {order}: {name}", values, nearest, bound)


def problem_text(sizes: str, pass_: str = "forward", rest: str = "f32 nchw cpu") -> str:
    return f"conv2d.{pass_} {sizes}r3s3 {rest}"


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("m", TILES)
def test_sizes_around_every_tile(m, pass_):
    """Images of one pixel to several tiles, whole and ragged, in both layouts."""
    for index, size in enumerate((1, 2, 4, 5, 9)):
        other = (size * 5 + index) % 11 + 1
        check(problem_text(f"n2c3h{size}w{other} k5", pass_, "p1 f32 nchw cpu"), m, orders=ORDERS, seed=index)
        check(problem_text(f"n1c5h{other}w{size} k7", pass_, "p1 f32 nhwc cpu"), m, orders=ORDERS, seed=index)


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "nchw>nhwc", "nhwc>nchw"])
@pytest.mark.parametrize("pass_", PASSES)
def test_channels_and_tiles_beyond_a_block(pass_, layout):
    """More channels and more tiles than a block of the product has rows: both of its sizes, whole and ragged steps."""
    for m, sizes in ((2, "n1c67h15w19 k70"), (4, "n1c17h5w9 k70"), (2, "n1c70h5w7 k3")):
        check(problem_text(sizes, pass_, f"p1 f32 {layout} cpu"), m)
    check(problem_text("n1c35h17w18 k37", pass_, f"p1 f64 {layout} cpu"), 2)


@pytest.mark.parametrize("dtype", ["f64", "f16", "bf16"])
@pytest.mark.parametrize("pass_", PASSES)
def test_dtypes(pass_, dtype):
    for m in TILES:
        for layout in ("nchw", "nhwc"):
            check(problem_text("n2c7h9w6 k6", pass_, f"p1 {dtype} {layout} cpu"), m)


@pytest.mark.parametrize("pass_", PASSES)
def test_windows(pass_):
    """Padding of none to more than the filter, unequal axes, outputs that end before or after the last whole window."""
    for window in ("p0", "p2", "p4x1", "p0x5", "o9x7 p1", "o14x15 p2"):
        for m in TILES:
            check(f"conv2d.{pass_} n1c2h12w13 k3r3s3 {window} f32 nchw cpu", m)


@pytest.mark.parametrize("pass_", PASSES)
def test_little_workspace(pass_):
    """Some tiles at a time, however few, in ranges that begin and end within an image."""
    for limit in (0, 2**15, 2**16):
        for m, layout in ((4, "nchw"), (2, "nhwc")):
            check(problem_text("n3c5h11w10 k6", pass_, f"p1 f32 {layout} cpu"), m, limit)
    problem = parse(problem_text("n3c5h31w30 k6", pass_))
    for kernel in kernels(problem, "winograd"):
        assert kernel.plan(problem, 1, 2**17).workspace_bytes <= 2**17


@pytest.mark.parametrize("pass_", PASSES)
def test_groups(pass_):
    for m in TILES:
        for layout in ("nchw", "nhwc"):
            check(problem_text("n2c12h7w6 k9", pass_, f"p1 g3 f32 {layout} cpu"), m)
            check(problem_text("n1c3h5w6 k3", pass_, f"p1 g3 f32 {layout} cpu"), m)


@pytest.mark.parametrize("pass_", PASSES)
def test_layouts(pass_):
    """Slices, and the weight's own layout."""
    for layout in ("nhwc/6000/37>nchw/7000", "nchw/6000>nhwc/6000/70", "nhwc w=nhwc", "nchw w=nhwc"):
        for m in TILES:
            check(problem_text("n2c5h9w7 k6", pass_, f"p1 f32 {layout} cpu"), m)


@pytest.mark.parametrize("epilogue", ["bias", "relu", "residual", "bias+residual+relu"])
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
def test_epilogue(pass_, epilogue):
    for layout in ("nchw", "nhwc"):
        for residual in ("nchw", "nhwc") if "residual" in epilogue else ("",):
            rest = f"p1 f32 {layout}{' res=' + residual if residual else ''} cpu {epilogue}"
            for m in TILES:
                check(problem_text("n2c5h7w9 k6", pass_, rest), m)


def test_splits_of_the_tiles():
    """grad_weight with few channels and many tiles adds up several sums."""
    for layout in ("nchw", "nhwc"):
        check(problem_text("n2c3h75w75 k2", "grad_weight", f"p1 f32 {layout} cpu"), 4)
        check(problem_text("n2c3h75w75 k2", "grad_weight", f"p1 f32 {layout} cpu"), 4, limit=2**18)


def test_empty():
    for pass_ in PASSES:
        for sizes in ("n0c3h5w5 k4", "n2c0h5w5 k4", "n2c3h5w5 k0"):
            epilogue = " bias+relu" if pass_ != "grad_weight" else ""
            problem = parse(problem_text(sizes, pass_, "p1 f32 nchw cpu" + epilogue))
            arrays = arrays_of(problem)
            for kernel in kernels(problem, "winograd"):
                computed = raw.run(problem, kernel, arrays, {})
                for name, values in reference.run(problem, arrays).items():
                    assert np.array_equal(computed[name], values), f"{problem}: {name}"


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("m", TILES)
def test_non_finite_values_stay_in_their_tiles(m, value):
    for epilogue in ("", " relu"):
        problem = parse(problem_text("n2c4h11w10 k5", rest=f"p1 f32 nchw cpu{epilogue}"))
        (kernel,) = (k for k in kernels(problem, "winograd") if k.variant == f"f{m}")
        for y, x in ((0, 0), (7, 9), (4, 3), (10, 5)):
            arrays = arrays_of(problem)
            arrays["input"][1, 3, y, x] = value
            computed = raw.run(problem, kernel, arrays, {})["output"]
            direct = reference.run(problem, arrays)["output"]
            assert not np.isfinite(computed)[~np.isfinite(direct)].any()
            rows, columns = ([t for t in range(0, 12, m) if t - 1 <= at < t + m + 1] for at in (y, x))
            reached = np.zeros(computed.shape, bool)
            for top in rows:
                for left in columns:
                    reached[1, :, top : top + m, left : left + m] = True
            assert np.isfinite(computed)[~reached].all()


@pytest.mark.parametrize("pass_", PASSES)
def test_what_no_window_reads_is_not_transformed(pass_):
    """Beyond the last window, though within its tile."""
    for sizes, name, inside in (
        ("n1c2h9w9 k3r3s3 o5x3", "input", (7, 5)),
        ("n1c2h5w3 k3r3s3 o9x9", "output", (7, 5)),
    ):
        problem = parse(f"conv2d.{pass_} {sizes} p0 f32 nchw cpu")
        arrays = arrays_of(problem)
        if name in arrays and (name == "input" or pass_ == "grad_input"):
            arrays[name][..., inside[0] :, :] = np.nan
            arrays[name][..., inside[1] :] = np.nan
        for kernel in kernels(problem, "winograd"):
            for values in raw.run(problem, kernel, arrays, {}).values():
                assert np.isfinite(values).all()


@pytest.mark.parametrize("m", TILES)
def test_relu_hides_no_overflow(m):
    """Values so large that a transform overflows, to an infinity of whatever sign, though the result is finite."""
    problem = parse(problem_text("n1c2h12w12 k8", rest="p1 f32 nchw cpu relu"))
    (kernel,) = (k for k in kernels(problem, "winograd") if k.variant == f"f{m}")
    for scale in (3e37, 6e37, 1e38, 2e38, 3e38):
        arrays = arrays_of(problem)
        arrays["input"] = np.sign(arrays["input"]) * rounded(np.float64(scale), "f32").astype(float)
        arrays["weight"] = rounded(arrays["weight"] * 1e-3, "f32").astype(float)
        computed = raw.run(problem, kernel, arrays, {})["output"]
        wrong = np.abs(computed - reference.run(problem, arrays)["output"]) > 1e-4 * scale
        assert not (np.isfinite(computed) & wrong).any()


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("m", TILES)
def test_numeric_class(m, pass_):
    """Error against the largest output, N(0, 1) data and He-scaled weights: at most 1e-5."""
    sizes = {"forward": "n1c512h7w8 k6", "grad_input": "n1c6h7w8 k512", "grad_weight": "n2c6h40w41 k6"}
    problem = parse(problem_text(sizes[pass_], pass_, "p1 f32 nchw cpu"))
    arrays = arrays_of(problem, seed=4)
    if "weight" in arrays:
        arrays["weight"] = rounded(arrays["weight"] * (2 / (9 * max(problem.c, problem.k))) ** 0.5, "f32").astype(float)
    (kernel,) = (k for k in kernels(problem, "winograd") if k.variant == f"f{m}")
    for name, values in raw.run(problem, kernel, arrays, {}).items():
        expected = reference.run(problem, arrays)[name]
        assert np.abs(values - expected).max() / np.abs(expected).max() <= 1e-5


def test_through_the_op():
    x = torch.randn(2, 5, 9, 8, dtype=torch.float64, requires_grad=True)
    w = torch.randn(6, 5, 3, 3, dtype=torch.float64, requires_grad=True)
    with pycv.use(backend="cuda", algorithm="winograd"), pycv.registry.record() as calls:
        y = PF.conv2d(x, w, padding=1)
        grads = torch.autograd.grad(y, (x, w), torch.ones_like(y))
    assert [call.choice.kernel.name for call in calls] == ["cuda:winograd/f4"] * 3
    expected = torch.nn.functional.conv2d(x, w, padding=1)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(grads, torch.autograd.grad(expected, (x, w), torch.ones_like(y)))


@pytest.mark.full
def test_gradients():
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    with pycv.use(backend="cuda", algorithm="winograd"):
        assert torch.autograd.gradcheck(lambda x, w: PF.conv2d(x, w, padding=1), (x, w))
        assert torch.autograd.gradgradcheck(lambda x, w: PF.conv2d(x, w, padding=1), (x, w))


def test_what_is_not_supported_is_said_in_words():
    def reason(text: str) -> str:
        problem = parse(text)
        entries = pycv.registry.kernels(problem.op, problem.pass_)
        reasons = [k.supports(problem) for k in entries if k.name.startswith("cuda:winograd")]
        assert None not in reasons
        return "; ".join(map(str, reasons))

    assert "stride 2x2" in reason("conv2d.forward n1c4h9w9 k4r3s3 u2 p1 f32 nchw cpu")
    assert "dilation 2x2" in reason("conv2d.forward n1c4h9w9 k4r3s3 p1 d2 f32 nchw cpu")
    assert "filter 5x5" in reason("conv2d.forward n1c4h9w9 k4r5s5 p1 f32 nchw cpu")
    assert "nchw16c" in reason("conv2d.forward n1c16h9w9 k16r3s3 p1 f32 nchw16c cpu")
