"""Winograd convolution at plan level: every tile, pass, layout and edge against the float64 reference.

An output's error may be as large as the largest values of its tile allow, so an element's bound is the tolerance times
the largest sum of absolute products within its tile.
"""

from dataclasses import replace

import numpy as np
import pytest

from pycv import registry
from pycv.kernels import Kernel, reference
from pycv.problem import ConvProblem, parse

from .. import compare, raw

# What a tile's transforms multiply rounding errors with, against the sum of absolute products: about twice what random
# problems showed.
AMPLIFICATION = {(2, 3): 1, (4, 3): 3, (5, 3): 4, (6, 3): 10, (2, 5): 5, (3, 5): 5, (4, 5): 12}
GRAD_WEIGHT_AMPLIFICATION = AMPLIFICATION | {(5, 3): 5, (2, 5): 15, (3, 5): 12, (4, 5): 35}
TILES = tuple(AMPLIFICATION)
PASSES = ("forward", "grad_input", "grad_weight")


def kernel_of(problem: ConvProblem, m: int) -> Kernel:
    return next(k for k in entries_of(problem, m) if k.supports(problem) is None)


def entries_of(problem: ConvProblem, m: int) -> list[Kernel]:
    """The entries of F(m), one per filter size."""
    return [k for k in registry.kernels(problem.op, problem.pass_) if k.name == f"cpu:winograd/f{m}"]


def takes_plain(problem: ConvProblem, m: int, threads: int = 1, limit: int = 2**28) -> bool:
    plan = kernel_of(problem, m).plan
    assert plan is not None
    return plan(problem, threads, limit).takes_plain_weight


def tile_maxima(values: np.ndarray, m: int) -> np.ndarray:
    """Each element (n, c, y, x) replaced by the largest of its m x m tile."""
    *_, h, w = values.shape
    padded = np.pad(values, ((0, 0), (0, 0), (0, -h % m), (0, -w % m)))
    for axis in (2, 3):
        blocks = np.moveaxis(padded, axis, -1)
        blocks = blocks.reshape(*blocks.shape[:-1], -1, m)
        blocks = np.broadcast_to(blocks.max(-1, keepdims=True), blocks.shape)
        padded = np.moveaxis(blocks.reshape(*blocks.shape[:-2], -1), -1, axis)
    return padded[..., :h, :w]


def arrays_of(problem: ConvProblem, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    dtype = np.float32 if problem.dtype == "f32" else np.float64
    return {
        o.name: rng.standard_normal(o.shape).astype(dtype).astype(np.float64) for o in raw.operands(problem) if o.read
    }


def check(text: str, m: int, threads: int = 1, limit: int = 2**28, seed: int = 0) -> None:
    problem = parse(text)
    kernel = kernel_of(problem, m)
    arrays = arrays_of(problem, seed)
    expected = reference.run(problem, arrays)
    bounds = compare.magnitudes(problem, arrays, expected)
    amplification = GRAD_WEIGHT_AMPLIFICATION if problem.pass_ == "grad_weight" else AMPLIFICATION
    factor = amplification[m, problem.filter[0]] * compare.tolerance(problem.dtype, compare.reduction_length(problem))
    plain = takes_plain(problem, m, threads, limit)
    computed = [raw.run(problem, kernel, arrays, {}, threads, limit, prepare=not late) for late in {False, plain}]
    for name, values in (item for tensors in computed for item in tensors.items()):
        bound = tile_maxima(bounds[name], problem.filter[0] if name == "weight" else m)
        bound = np.maximum(bound, compare.largest_products(problem, arrays))
        compare.assert_elements(f"{problem} {kernel.name}: {name}", values, expected[name], factor * bound)


def problem_text(sizes: str, r: int, pass_: str = "forward", rest: str = "f32 nchw cpu") -> str:
    return f"conv2d.{pass_} {sizes}r{r}s{r} p{r // 2} {rest}"


def test_numeric_class_goes_by_the_channels_that_a_sum_has():
    for pass_, channels in (("forward", "c{}h9w9 k8"), ("grad_input", "c8h9w9 k{}")):
        for count, expected in ((256, "default"), (257, "fast")):
            text = problem_text("n1" + channels.format(count), 3, pass_)
            assert kernel_of(parse(text), 5).numeric_class == expected
            assert kernel_of(parse(text), 4).numeric_class == "default"
            assert kernel_of(parse(text), 6).numeric_class == "fast"
    assert kernel_of(parse(problem_text("n1c300h9w9 k300", 3, "grad_weight")), 5).numeric_class == "default"


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize(("m", "r"), TILES)
def test_sizes_around_every_tile(m, r, pass_):
    """Images of one pixel to several tiles, whole and ragged, in both layouts."""
    for index, size in enumerate((1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 17, 25)):
        for layout in ("nchw", "nhwc"):
            other = (size * 5 + index) % 19 + 1
            check(problem_text(f"n2c3h{size}w{other} k5", r, pass_, f"f32 {layout} cpu"), m, seed=index)
            check(problem_text(f"n1c18h{other}w{size} k33", r, pass_, f"f32 {layout} cpu"), m, seed=index)


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize(("m", "r"), TILES)
def test_float64(m, r, pass_):
    for layout in ("nchw", "nhwc"):
        check(problem_text("n2c19h13w11 k21", r, pass_, f"f64 {layout} cpu"), m, threads=2)


@pytest.mark.parametrize("pass_", PASSES)
def test_wide_images_are_cut_into_patches(pass_):
    for layout in ("nchw", "nhwc"):
        check(problem_text("n1c16h9w150 k17", 3, pass_, f"f32 {layout} cpu"), 4, threads=2)
        check(problem_text("n1c2h150w70 k3", 5, pass_, f"f32 {layout} cpu"), 2)


# Many tiles: every thread has blocks of its own. Few tiles and many channels: threads share blocks and panels.
THREADED = ("n3c20h33w29 k40", "n1c130h7w7 k100", "n2c70h14w6 k33", "n1c3h50w50 k200", "n1c300h3w3 k5")


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("pass_", PASSES)
def test_threads(pass_, threads):
    for index, sizes in enumerate(THREADED):
        layout = ("nchw", "nhwc")[(index + threads) % 2]
        check(problem_text(sizes, 3, pass_, f"f32 {layout} cpu"), (4, 2)[index % 2], threads)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
def test_plain_weights(pass_, threads):
    """Few tiles, many channels: run() transforms the weight, some source channels at a time."""
    for index, (source, computed) in enumerate(((300, 40), (257, 17), (520, 70))):
        channels = f"c{source}h6w5 k{computed}" if pass_ == "forward" else f"c{computed}h6w5 k{source}"
        for m, r in ((2, 3), (4, 3), (3, 5)):
            text = problem_text(f"n1{channels}", r, pass_, f"f32 {('nchw', 'nhwc')[index % 2]} cpu")
            assert takes_plain(parse(text), m, threads)
            check(text, m, threads, seed=index)
    check(f"conv2d.{pass_} n1c64h5w5 k64r3s3 p1 g2 f64 nchw cpu", 4, threads)
    many = "c8h60w60 k8" if pass_ == "forward" else "c8h30w30 k8"
    assert not takes_plain(parse(problem_text(f"n2{many}", 3, pass_)), 4, threads)


@pytest.mark.parametrize("pass_", PASSES)
def test_small_workspace(pass_):
    for limit in (0, 2**16, 2**20):
        for threads in (1, 3):
            check(problem_text("n3c40h19w18 k36", 3, pass_), 4, threads, limit)
            check(problem_text("n1c90h7w7 k70", 3, pass_, "f32 nhwc cpu"), 2, threads, limit)


@pytest.mark.parametrize("pass_", PASSES)
def test_windows(pass_):
    """Padding of none to more than the filter, unequal axes, outputs that end before or after the last whole window."""
    for window in ("p0", "p2", "p3", "p4x1", "p0x5", "o9x7 p1", "o14x15 p2"):
        for m in (2, 4, 6):
            check(f"conv2d.{pass_} n1c5h12w13 k6r3s3 {window} f32 nchw cpu", m)
        check(f"conv2d.{pass_} n2c17h12w13 k6r5s5 {window} f32 nhwc cpu", 3)


@pytest.mark.parametrize("pass_", PASSES)
def test_groups(pass_):
    for layout in ("nchw", "nhwc"):
        check(f"conv2d.{pass_} n2c12h9w10 k18r3s3 p1 g3 f32 {layout} cpu", 4)
        check(f"conv2d.{pass_} n1c40h7w7 k40r3s3 p1 g2 f32 {layout} cpu", 2, threads=2)
        check(f"conv2d.{pass_} n1c4h11w9 k4r5s5 p2 g4 f32 {layout} cpu", 4, threads=3)


@pytest.mark.parametrize("pass_", PASSES)
def test_layouts(pass_):
    """Mixed, sliced and blocked layouts, whole and partial blocks, and the weight's own layout."""
    layouts = (
        "nchw>nhwc", "nhwc>nchw", "nhwc/60000/37>nchw/70000", "nchw/60000>nhwc/60000/70", "nhwc w=nhwc", "nchw w=nhwc",
        "nchw8c", "nchw16c", "nchw16c>nchw8c", "nchw8c>nhwc", "nchw>nchw16c", "nhwc>nchw8c",
    )  # fmt: skip
    for layout in layouts:
        check(problem_text("n2c32h13w10 k48", 3, pass_, f"f32 {layout} cpu"), 4)
        check(problem_text("n2c21h13w10 k37", 3, pass_, f"f32 {layout} cpu"), 2, threads=2)
        check(problem_text("n1c9h7w7 k50", 5, pass_, f"f64 {layout} cpu"), 3)


@pytest.mark.parametrize("epilogue", ["bias", "relu", "residual", "bias+residual+relu"])
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
def test_epilogue(pass_, epilogue):
    for layout in ("nchw", "nhwc", "nchw16c", "nchw8c"):
        for residual in ("nchw", "nhwc", "nchw16c") if "residual" in epilogue else ("",):
            rest = f"f32 {layout}{' res=' + residual if residual else ''} cpu {epilogue}"
            check(problem_text("n2c20h10w9 k37", 3, pass_, rest), 4)
            check(problem_text("n1c32h16w17 k32", 3, pass_, rest), 2, threads=2)
            check(problem_text("n1c48h6w5 k48", 3, pass_, rest), 6)


@pytest.mark.parametrize("prologue", [("scale",), ("relu",), ("scale", "relu")], ids="+".join)
def test_prologue(prologue):
    """The padding is that of the convolution's input as it is after the prologue: 0."""
    for layout in ("nchw", "nhwc", "nchw16c", "nchw8c>nchw"):
        for m, sizes in ((4, "n2c20h10w9 k37"), (2, "n1c32h7w7 k16"), (6, "n1c16h20w8 k16")):
            problem = replace(parse(problem_text(sizes, 3, rest=f"f32 {layout} cpu bias+relu")), prologue=prologue)
            check(str(problem), m, threads=2)


def test_empty():
    for pass_ in PASSES:
        for sizes in ("n0c3h5w5 k4", "n2c0h5w5 k4", "n2c3h5w5 k0"):
            for threads in (1, 3):
                rest = "f32 nchw cpu" + (" bias+relu" if pass_ != "grad_weight" else "")
                problem = parse(problem_text(sizes, 3, pass_, rest))
                arrays = arrays_of(problem)
                computed = raw.run(problem, kernel_of(problem, 4), arrays, {}, threads)
                for name, values in reference.run(problem, arrays).items():
                    assert np.array_equal(computed[name], values), f"{problem}: {name}"


@pytest.mark.parametrize("pass_", PASSES)
def test_deterministic(pass_):
    for sizes in ("n2c40h30w30 k40", "n1c100h7w7 k70"):
        problem = parse(problem_text(sizes, 3, pass_))
        arrays = arrays_of(problem)
        for m in (2, 4, 6):
            first, second = (raw.run(problem, kernel_of(problem, m), arrays, {}, 3) for _ in range(2))
            assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(("m", "r"), TILES)
def test_non_finite_values_stay_in_their_tiles(m, r, value):
    problem = parse(problem_text("n2c20h23w22 k40", r))
    for y, x in ((0, 0), (7, 9), (11, 12), (22, 21)):
        arrays = arrays_of(problem)
        arrays["input"][1, 3, y, x] = value
        computed = raw.run(problem, kernel_of(problem, m), arrays, {}, 2)["output"]
        direct = reference.run(problem, arrays)["output"]
        assert not np.isfinite(computed)[~np.isfinite(direct)].any()
        rows, columns = ([t for t in range(0, 24, m) if t - r // 2 <= at < t + m + r // 2] for at in (y, x))
        reached = np.zeros(computed.shape, bool)
        for top in rows:
            for left in columns:
                reached[1, :, top : top + m, left : left + m] = True
        assert np.isfinite(computed)[~reached].all()


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize(("m", "r"), TILES)
def test_numeric_class(m, r, pass_):
    """Error against the largest output, N(0, 1) data and He-scaled weights: at most 1e-5 unless the class is fast."""
    sizes = {"forward": "n1c512h11w12 k30", "grad_input": "n1c30h11w12 k512", "grad_weight": "n2c24h40w41 k24"}
    problem = parse(problem_text(sizes[pass_], r, pass_))
    arrays = arrays_of(problem, seed=4)
    if "weight" in arrays:
        arrays["weight"] = (
            (arrays["weight"] * (2 / (r * r * max(problem.c, problem.k))) ** 0.5).astype(np.float32).astype(np.float64)
        )
    kernel = kernel_of(problem, m)
    for name, values in raw.run(problem, kernel, arrays, {}, 2).items():
        expected = reference.run(problem, arrays)[name]
        error = np.abs(values - expected).max() / np.abs(expected).max()
        assert error <= (1e-5 if kernel.numeric_class == "default" else 1e-4), f"{problem}: {error:.2e}"


def test_what_is_not_supported_is_said_in_words():
    def reason(text: str, m: int) -> str:
        problem = parse(text)
        reasons = [kernel.supports(problem) for kernel in entries_of(problem, m)]
        assert None not in reasons
        return "; ".join(map(str, reasons))

    assert "stride 2x2" in reason("conv2d.forward n1c4h9w9 k4r3s3 u2 p1 f32 nchw cpu", 4)
    assert "dilation 2x2" in reason("conv2d.forward n1c4h9w9 k4r3s3 p1 d2 f32 nchw cpu", 4)
    assert "filter 3x5" in reason("conv2d.forward n1c4h9w9 k4r3s5 p1 f32 nchw cpu", 4)
    assert "this tile is for 3x3" in reason("conv2d.forward n1c4h9w9 k4r5s5 p1 f32 nchw cpu", 6)
    assert "this tile is for 5x5" in reason("conv2d.forward n1c4h9w9 k4r3s3 p1 f32 nchw cpu", 3)
    assert "blocked" in reason("conv2d.forward n1c16h9w9 k16r3s3 p1 g2 f32 nchw16c cpu", 4)


def test_cost_counts_what_the_algorithm_multiplies():
    for pass_ in PASSES:
        problem = parse(problem_text("n2c64h28w28 k64", 3, pass_))
        direct = problem.flops / 2
        for threads in (1, 2):
            plans = [kernel_of(problem, m).plan(problem, threads, 2**28) for m in (2, 4)]
            for gain, plan in zip((2.25, 4), plans, strict=True):
                least = direct / gain / threads
                assert least <= plan.cost.multiply_adds <= 1.2 * least, (pass_, threads, gain)
                assert plan.cost.vector_elements > 0 and plan.cost.bytes >= problem.bytes and plan.cost.regions >= 1
