"""Strided convolution by Winograd over the phases of an image, as channels (s2d) or with planes of their own (split),
against the float64 reference.

As in test_winograd.py an element's bound is the tolerance times the largest sum of absolute products within its tile.
"""

from dataclasses import replace

import numpy as np
import pytest

from pycv import registry
from pycv.kernels import Kernel, reference
from pycv.problem import ConvProblem, parse

from .. import compare, raw
from .test_winograd import arrays_of, tile_maxima

# By tile size and taps per stride: what the transforms multiply rounding errors with, about twice what was seen.
AMPLIFICATION = {(3, 2): 1, (5, 2): 5, (2, 3): 1, (4, 3): 3, (3, 4): 5, (4, 4): 8}
SPLIT_AMPLIFICATION = {2: 1, 4: 3}
TILES = tuple(AMPLIFICATION)
PASSES = ("forward", "grad_input", "grad_weight")
# By taps per stride: filters and strides that have as many, with and without taps that do not exist.
FILTERS = {
    2: ("r3s3 u2", "r4s4 u2", "r5s5 u3", "r8s5 u4", "r2s4 u1x2"),
    3: ("r5s5 u2", "r6s6 u2", "r11s11 u4", "r7s9 u3", "r3s4 u1x2", "r5s2 u2x1"),
    4: ("r7s7 u2", "r8s8 u2", "r13s16 u4", "r10s11 u3", "r7s4 u2x1"),
}


def strided_entries(problem: ConvProblem, m: int) -> list[Kernel]:
    return [k for k in registry.kernels(problem.op, problem.pass_) if k.name == f"cpu:winograd/s2d-f{m}"]


def kernel_of(problem: ConvProblem, m: int) -> Kernel:
    return next(k for k in strided_entries(problem, m) if k.supports(problem) is None)


def taps_of(problem: ConvProblem) -> int:
    return max(-(-r // s) for r, s in zip(problem.filter, problem.stride, strict=True))


def check(text: str, m: int, threads: int = 1, limit: int = 2**28, seed: int = 0) -> None:
    problem = parse(text)
    kernel = kernel_of(problem, m)
    arrays = arrays_of(problem, seed)
    computed = raw.run(problem, kernel, arrays, {}, threads, limit)["output"]
    expected = reference.run(problem, arrays)
    bound = tile_maxima(compare.magnitudes(problem, arrays, expected)["output"], m)
    bound = np.maximum(bound, compare.largest_products(problem, arrays))
    factor = AMPLIFICATION[m, taps_of(problem)] * compare.tolerance(problem.dtype, compare.reduction_length(problem))
    compare.assert_elements(f"{problem} {kernel.name}", computed, expected["output"], factor * bound)


# ------------------------------------------------------------------------------------------------- phases as channels


@pytest.mark.parametrize(("m", "taps"), TILES)
def test_filters_and_strides(m, taps):
    for index, filter in enumerate(FILTERS[taps]):
        for layout in ("nchw", "nhwc"):
            check(f"conv2d.forward n2c3h41w{90 + index} k9{filter} p{index} f32 {layout} cpu", m, seed=index)
            check(f"conv2d.forward n1c18h17w{19 + index} k33{filter} p{taps - 1} f64 {layout} cpu", m, threads=2)


@pytest.mark.parametrize(("m", "taps"), TILES)
def test_sizes_around_every_tile(m, taps):
    for index, size in enumerate((1, 2, 3, 5, 7, 8, 9, 14, 15, 16, 17, 31)):
        other = (size * 5 + index) % 40 + 20
        filter = FILTERS[taps][index % 2]
        for layout in ("nchw", "nhwc"):
            check(f"conv2d.forward n1c3h{size}w{other} k5{filter} p4 f32 {layout} cpu", m, seed=index)
            check(f"conv2d.forward n2c7h{other}w{size} k17{filter} p4x5 f32 {layout} cpu", m, threads=2, seed=index)


def test_windows():
    """Paddings up to more than the filter, outputs that end before or after the last whole window."""
    for window in ("p0", "p2", "p9", "p4x1", "p0x8", "o9x7 p1", "o10x15 p2", "o1x2 p3"):
        check(f"conv2d.forward n1c5h21w24 k6r5s5 u2 {window} f32 nchw cpu", 4)
        check(f"conv2d.forward n1c5h21w24 k6r7s7 u2 {window} f32 nhwc cpu", 3)


def test_groups():
    for layout in ("nchw", "nhwc"):
        check(f"conv2d.forward n2c12h23w40 k18r7s7 u2 p3 g3 f32 {layout} cpu", 4)
        check(f"conv2d.forward n1c40h17w17 k40r3s3 u2 p1 g2 f32 {layout} cpu", 3, threads=2)
        check(f"conv2d.forward n1c4h41w39 k4r11s11 u4 p2 g4 f32 {layout} cpu", 2, threads=3)


def test_layouts():
    """Mixed, sliced and blocked layouts, whole and partial blocks, and the weight's own layout."""
    layouts = (
        "nchw>nhwc", "nhwc>nchw", "nhwc/60000/37>nchw/70000", "nchw/60000>nhwc/60000/70", "nhwc w=nhwc", "nchw w=nhwc",
        "nchw8c", "nchw16c", "nchw16c>nchw8c", "nchw8c>nhwc", "nchw>nchw16c", "nhwc>nchw8c",
    )  # fmt: skip
    for layout in layouts:
        check(f"conv2d.forward n2c32h26w37 k48r5s5 u2 p2 f32 {layout} cpu", 4)
        check(f"conv2d.forward n2c21h13w20 k37r7s7 u2 p3 f32 {layout} cpu", 3, threads=2)
        check(f"conv2d.forward n1c9h37w37 k50r11s11 u4 p2 f64 {layout} cpu", 2)


@pytest.mark.parametrize("epilogue", ["bias", "relu", "residual", "bias+residual+relu"])
def test_epilogue(epilogue):
    for layout in ("nchw", "nhwc", "nchw16c"):
        for residual in ("nchw", "nhwc") if "residual" in epilogue else ("",):
            rest = f"f32 {layout}{' res=' + residual if residual else ''} cpu {epilogue}"
            check(f"conv2d.forward n2c3h40w37 k37r7s7 u2 p3 {rest}", 4, threads=2)


@pytest.mark.parametrize("prologue", [("scale",), ("relu",), ("scale", "relu")], ids="+".join)
def test_prologue(prologue):
    """The padding is that of the convolution's input as it is after the prologue: 0."""
    for layout in ("nchw", "nhwc", "nchw16c", "nchw8c>nchw"):
        for m, sizes in ((4, "n2c3h40w87 k37r7s7 u2 p3"), (2, "n1c20h17w47 k16r5s5 u2 p2"), (3, "n1c6h9w70 k4r4s4 u2")):
            problem = replace(parse(f"conv2d.forward {sizes} f32 {layout} cpu bias+relu"), prologue=prologue)
            check(str(problem), m, threads=2)


def test_threads_and_workspace():
    for threads in (2, 3, 8):
        for limit in (0, 2**20, 2**28):
            check("conv2d.forward n3c3h66w58 k40r7s7 u2 p3 f32 nchw cpu", 4, threads, limit)
            check("conv2d.forward n1c70h14w14 k100r3s3 u2 p1 f32 nhwc cpu", 3, threads, limit)


def test_empty():
    for sizes in ("n0c3h15w15 k4", "n2c0h15w15 k4", "n2c3h15w15 k0"):
        problem = parse(f"conv2d.forward {sizes}r7s7 u2 p3 f32 nchw cpu bias+relu")
        arrays = arrays_of(problem)
        computed = raw.run(problem, kernel_of(problem, 4), arrays, {}, 2)["output"]
        assert np.array_equal(computed, reference.run(problem, arrays)["output"])


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(("m", "taps"), TILES)
def test_non_finite_values_stay_in_their_tiles(m, taps, value):
    """Whatever direct makes non-finite is so; nothing outside of the tiles whose phases hold the value is."""
    problem = parse(f"conv2d.forward n2c5h46w43 k20{FILTERS[taps][0]} p1 f32 nchw cpu")
    (stride, _), window = problem.stride, m + taps - 1
    for y, x in ((0, 0), (17, 19), (24, 23), (45, 42)):
        arrays = arrays_of(problem)
        arrays["input"][1, 3, y, x] = value
        computed = raw.run(problem, kernel_of(problem, m), arrays, {}, 2)["output"]
        direct = reference.run(problem, arrays)["output"]
        assert not np.isfinite(computed)[~np.isfinite(direct)].any()
        rows, columns = (
            [t for t in range(0, 46, m) if t * stride - 1 <= at < (t + window) * stride - 1] for at in (y, x)
        )
        reached = np.zeros(computed.shape, bool)
        for top in rows:
            for left in columns:
                reached[1, :, top : top + m, left : left + m] = True
        assert np.isfinite(computed)[~reached].all()


def test_pixels_that_no_window_reads_are_not_read():
    """Those behind the last window lie within a tile."""
    for filter, kernels in (("r5s5 u3", ("s2d-f3",)), ("r3s3 u2", ("split-f2", "split-f4")), ("r3s3", ("f2", "f4"))):
        problem = parse(f"conv2d.forward n1c3h18w20 k4{filter} o5x4 p1 f32 nhwc cpu")
        arrays = arrays_of(problem)
        rows, columns = ((out - 1) * problem.stride[0] + problem.filter[0] - 1 for out in problem.output_size)
        arrays["input"][:, :, rows:] = np.nan
        arrays["input"][..., columns:] = np.nan
        assert np.isfinite(reference.run(problem, arrays)["output"]).all()
        entries = [k for k in registry.kernels("conv2d", "forward") if k.variant in kernels]
        supported = [k for k in entries if k.supports(problem) is None]
        assert len(supported) == len(kernels)
        for kernel in supported:
            assert np.isfinite(raw.run(problem, kernel, arrays, {}, 1)["output"]).all(), kernel.name


@pytest.mark.parametrize(("m", "taps"), TILES)
def test_numeric_class(m, taps):
    """Error against the largest output, N(0, 1) data and He-scaled weights: at most 1e-5 unless the class is fast."""
    for c in (3, 128, 256):
        problem = parse(f"conv2d.forward n1c{c}h31w34 k30{FILTERS[taps][0]} p1 f32 nchw cpu")
        arrays = arrays_of(problem, seed=4)
        scale = (2 / (c * problem.filter[0] * problem.filter[1])) ** 0.5
        arrays["weight"] = (arrays["weight"] * scale).astype(np.float32).astype(np.float64)
        kernel = kernel_of(problem, m)
        expected = reference.run(problem, arrays)["output"]
        error = np.abs(raw.run(problem, kernel, arrays, {}, 2)["output"] - expected).max() / np.abs(expected).max()
        assert error <= (1e-5 if kernel.numeric_class == "default" else 1e-4), f"{problem}: {error:.2e}"


def test_what_is_not_supported_is_said_in_words():
    def reasons(text: str, m: int) -> str:
        problem = parse(text)
        found = [kernel.supports(problem) for kernel in strided_entries(problem, m)]
        assert None not in found
        return "; ".join(map(str, found))

    assert "stride 1x1" in reasons("conv2d.forward n1c4h9w9 k4r3s3 p1 f32 nchw cpu", 4)
    assert "stride 5x5" in reasons("conv2d.forward n1c4h29w29 k4r15s15 u5 f32 nchw cpu", 4)
    assert "dilation 2x2" in reasons("conv2d.forward n1c4h19w19 k4r3s3 u2 d2 f32 nchw cpu", 4)
    assert "4 taps per stride" in reasons("conv2d.forward n1c4h9w9 k4r9s9 p4 u2 f32 nchw cpu", 4)
    assert "less than the stride" in reasons("conv2d.forward n1c4h9w9 k4r3s1 p1x0 u1x2 f32 nchw cpu", 4)
    assert "blocked" in reasons("conv2d.forward n1c16h9w9 k16r7s7 u2 p3 g2 f32 nchw16c cpu", 4)


def test_cost_counts_what_the_algorithm_multiplies():
    problem = parse("conv2d.forward n2c16h112w112 k64r7s7 u2 p3 f32 nchw cpu")
    for m, gain in ((3, 49 * 9 / (4 * 36)), (4, 49 * 16 / (4 * 49))):
        for threads in (1, 2):
            plan = kernel_of(problem, m).plan(problem, threads, 2**28)
            least = problem.flops / 2 / gain / threads
            assert least <= plan.cost.multiply_adds <= 1.2 * least
            assert plan.cost.vector_elements > 0 and plan.cost.bytes >= problem.bytes and plan.cost.regions >= 1


# ------------------------------------------------------------------------------------------------- phases as planes


def split_entry(problem: ConvProblem, m: int) -> Kernel:
    (kernel,) = (k for k in registry.kernels(problem.op, problem.pass_) if k.name == f"cpu:winograd/split-f{m}")
    return kernel


def check_split(sizes: str, m: int, rest: str = "f32 nchw cpu", threads: int = 1, limit: int = 2**28, passes=PASSES):
    for pass_ in passes:
        problem = parse(f"conv2d.{pass_} {sizes} {rest}")
        kernel = split_entry(problem, m)
        assert kernel.supports(problem) is None
        arrays = arrays_of(problem, seed=problem.n + problem.size[0])
        expected = reference.run(problem, arrays)
        ((name, values),) = raw.run(problem, kernel, arrays, {}, threads, limit).items()
        # A tile of grad_input is of 2 m pixels and may begin one pixel before the image.
        bound = compare.magnitudes(problem, arrays, expected)[name]
        bound = tile_maxima(bound, {"forward": m, "grad_input": 4 * m, "grad_weight": 3}[pass_])
        if pass_ == "grad_input":
            shifted = np.pad(bound, ((0, 0), (0, 0), (1, 1), (1, 1)))
            neighbours = [
                shifted[:, :, y:, x:][:, :, : bound.shape[2], : bound.shape[3]] for y in (0, 2) for x in (0, 2)
            ]
            bound = np.maximum.reduce([bound, *neighbours])
        bound = np.maximum(bound, compare.largest_products(problem, arrays))
        factor = SPLIT_AMPLIFICATION[m] * compare.tolerance(problem.dtype, compare.reduction_length(problem))
        compare.assert_elements(f"{problem} {kernel.name}: {name}", values, expected[name], factor * bound)


@pytest.mark.parametrize("m", SPLIT_AMPLIFICATION)
def test_split_sizes_around_every_tile(m):
    for index, size in enumerate((1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 18, 33)):
        other, padding = (size * 5 + index) % 40 + 3, index % 5
        for layout in ("nchw", "nhwc"):
            check_split(f"n2c3h{size + 2}w{other} k5r3s3 u2 p{padding}", m, f"f32 {layout} cpu")
            check_split(f"n1c18h{other}w{size + 2} k33r3s3 u2 p{padding}x1", m, f"f32 {layout} cpu", threads=2)


@pytest.mark.parametrize("m", SPLIT_AMPLIFICATION)
def test_split_windows(m):
    """Paddings up to more than the filter, outputs that end before or after the last whole window."""
    for window in ("p0", "p2", "p5", "p6", "p4x1", "p0x3", "o5x6 p1", "o8x9 p0x1", "o1x2 p3"):
        check_split(f"n1c5h16w15 k6r3s3 u2 {window}", m, "f64 nchw cpu")
        check_split(f"n2c17h15w16 k20r3s3 u2 {window}", m, "f32 nhwc cpu", threads=3)


@pytest.mark.parametrize("m", SPLIT_AMPLIFICATION)
def test_split_groups_layouts_threads(m):
    for layout in ("nchw", "nhwc"):
        check_split("n2c12h19w20 k18r3s3 u2 p1 g3", m, f"f32 {layout} cpu")
        check_split("n3c36h40w26 k40r3s3 u2 p1", m, f"f32 {layout} cpu", threads=3, limit=2**18)
        check_split("n1c130h14w14 k150r3s3 u2 p1", m, f"f32 {layout} w=nhwc cpu", threads=8)
    for layout in ("nhwc/60000/37>nchw/70000", "nchw/60000>nhwc/60000/70", "nchw8c", "nchw16c", "nhwc>nchw16c"):
        check_split("n2c32h14w23 k48r3s3 u2 p1", m, f"f32 {layout} cpu", threads=2)
        check_split("n1c21h17w16 k37r3s3 u2 p0", m, f"f32 {layout} cpu")


@pytest.mark.parametrize("m", SPLIT_AMPLIFICATION)
def test_split_epilogue_and_prologue(m):
    for layout in ("nchw", "nhwc", "nchw16c"):
        for padding in (0, 1):
            sizes = f"n2c32h21w18 k37r3s3 u2 p{padding}"
            for epilogue in ("bias", f"res={layout.split()[0]} residual+relu"):
                parts = epilogue.split()
                rest = f"f32 {layout} {' '.join(parts[:-1])} cpu {parts[-1]}".replace("  ", " ")
                check_split(sizes, m, rest, passes=("forward", "grad_input"))
            problem = replace(parse(f"conv2d.forward {sizes} f32 {layout} cpu"), prologue=("scale", "relu"))
            check_split(str(problem).split(" ", 1)[1], m, "", passes=("forward",))


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("m", SPLIT_AMPLIFICATION)
def test_split_empty_and_deterministic(m, pass_):
    for sizes in ("n0c3h15w15 k4", "n2c0h15w15 k4", "n2c3h15w15 k0", "n2c40h31w30 k40"):
        problem = parse(f"conv2d.{pass_} {sizes}r3s3 u2 p1 f32 nchw cpu")
        arrays = arrays_of(problem)
        first, second = (raw.run(problem, split_entry(problem, m), arrays, {}, 3) for _ in range(2))
        for name, values in reference.run(problem, arrays).items():
            assert np.array_equal(first[name], second[name])
            assert np.allclose(first[name], values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("m", SPLIT_AMPLIFICATION)
def test_split_non_finite_values_stay_in_their_tiles(m, value):
    for pass_, read, name, padding, tile in (
        ("forward", "input", "output", 1, m), ("grad_input", "output", "input", 1, 2 * m),
    ):  # fmt: skip
        problem = parse(f"conv2d.{pass_} n2c20h46w42 k20r3s3 u2 p{padding} f32 nchw cpu")
        for y, x in ((0, 0), (7, 9), (16, 15), (22, 20)):
            arrays = arrays_of(problem)
            arrays[read][1, 3, y, x] = value
            computed = raw.run(problem, split_entry(problem, m), arrays, {}, 2)[name]
            bad = ~np.isfinite(reference.run(problem, arrays)[name])
            assert not np.isfinite(computed)[bad].any()
            reached = tile_maxima(bad.astype(np.float64), tile) > 0
            # A window is a pixel larger than what direct reads for the tile's last output, in no pass by more.
            assert np.isfinite(computed)[~reached].all(), (pass_, y, x)


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("m", SPLIT_AMPLIFICATION)
def test_split_numeric_class(m, pass_):
    sizes = {"forward": "n1c512h21w22 k30", "grad_input": "n1c30h21w22 k512", "grad_weight": "n2c24h80w81 k24"}
    problem = parse(f"conv2d.{pass_} {sizes[pass_]}r3s3 u2 p1 f32 nchw cpu")
    arrays = arrays_of(problem, seed=4)
    kernel = split_entry(problem, m)
    for name, values in raw.run(problem, kernel, arrays, {}, 2).items():
        expected = reference.run(problem, arrays)[name]
        error = np.abs(values - expected).max() / np.abs(expected).max()
        assert kernel.numeric_class == "default" and error <= 1e-5, f"{problem}: {error:.2e}"


def test_split_refusals():
    for window, word in (("r3s3 p1", "stride 1x1"), ("r5s5 u2 p2", "filter 5x5"), ("r3s3 u2 d2 p1", "dilation 2x2")):
        for pass_ in PASSES:
            problem = parse(f"conv2d.{pass_} n1c4h19w19 k4{window} f32 nchw cpu")
            assert word in str(split_entry(problem, 4).supports(problem))
    problem = parse("conv2d.forward n1c16h9w9 k16r3s3 u2 p1 g2 f32 nchw16c cpu")
    assert "blocked" in str(split_entry(problem, 4).supports(problem))


def test_split_cost_counts_what_the_algorithm_multiplies():
    for pass_ in PASSES:
        problem = parse(f"conv2d.{pass_} n2c64h32w32 k64r3s3 u2 p1 f32 nchw cpu")
        for m, gain in ((2, 1.44), (4, 144 / 81)):
            for threads in (1, 2):
                cost = split_entry(problem, m).plan(problem, threads, 2**28).cost
                least = problem.flops / 2 / gain / threads
                assert least <= cost.multiply_adds <= 1.2 * least, (pass_, m, threads)
                assert cost.vector_elements > 0 and cost.bytes >= problem.bytes and cost.regions >= 1
