"""Convolution by Fourier transforms, at plan level against float64 and through the functional op.

A transform spreads rounding errors over its tile: the bound of an element is a small multiple of the rounding error of
the largest sum of absolute products in its plane (an image's channel, or a filter).
"""

from dataclasses import replace

import pytest
import torch

import pycv
from pycv import functional, registry
from pycv.problem import parse

from .test_conv_kernels import (
    CASES,
    COMPUTED,
    DTYPES,
    LAYOUTS,
    PASSES,
    THREADED,
    Case,
    flat,
    guarded,
    laid_out,
    make_plan,
    normal,
    reference,
    run_plan,
)

ROUNDINGS = 6  # of the largest sum of its plane; measured: up to 2.5
FLAT_CASES = {name: case for name, case in CASES.items() if case.size[0] == 1}


def operands(case, pass_, dtype="f32", layouts=("nchw",) * 3, data=normal, seed=0):
    """The tensors of a case, the one to compute full of NaN; and the whole buffer of that."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: laid_out(data(case.shapes[name], DTYPES[dtype], generator), layout)
        for name, layout in zip(("input", "weight", "output"), layouts, strict=True)
    }
    name = COMPUTED[pass_]
    layout = layouts[("input", "weight", "output").index(name)]
    tensors[name], buffer = guarded(case.shapes[name], layout, DTYPES[dtype])
    return tensors, buffer


def check(case, pass_, dtype="f32", layouts=("nchw",) * 3, epilogue=(), threads=1, limit=1 << 28, data=normal, seed=0):
    tensors, buffer = operands(case, pass_, dtype, layouts, data, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    computed = tensors[COMPUTED[pass_]]
    bias = normal(computed.shape[1:2], computed.dtype, generator) if "bias" in epilogue else None
    layout = layouts[("input", "weight", "output").index(COMPUTED[pass_])]
    residual = laid_out(normal(computed.shape, computed.dtype, generator), layout) if "residual" in epilogue else None
    plan = make_plan(case, pass_, "fft", tensors, residual, epilogue, threads, limit)
    run_plan(plan, pass_, tensors, bias, residual)

    expected = reference(case, pass_, tensors)
    sizes = reference(case, pass_, {name: t.abs() for name, t in tensors.items()})
    if bias is not None:
        expected = expected + bias.double().reshape(1, -1, 1, 1, 1)
    if residual is not None:
        expected = expected + residual.double()
    if "relu" in epilogue:
        expected = expected.relu()
    eps = torch.finfo(computed.dtype).eps
    bound = torch.zeros_like(expected)
    if expected.numel():
        bound = (ROUNDINGS * sizes.amax((2, 3, 4), keepdim=True) + 2 * expected.abs() + (4 if epilogue else 0)) * eps
    wrong = ~((computed.double() - expected).abs() <= bound)
    assert not wrong.any(), (
        f"{wrong.sum().item()} of {wrong.numel()} elements wrong, first at {wrong.nonzero()[0].tolist()}: "
        f"{computed[wrong][0].item()} instead of {expected[wrong][0].item()}"
    )
    computed.fill_(torch.nan)
    assert buffer.isnan().all(), "elements outside the computed tensor were written"


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("name", FLAT_CASES)
def test_every_kind_of_problem(name, pass_):
    for index, layout in enumerate(LAYOUTS):
        check(CASES[name], pass_, "f64" if index % 3 == 2 else "f32", LAYOUTS[layout], seed=index)


@pytest.mark.parametrize("pass_", PASSES)
def test_every_filter_size(pass_):
    """1x1 to 33x33, odd and even, on images that are no multiple of a tile; every second one rectangular."""
    for r in range(1, 34):
        other = r if r % 2 else 35 - r
        size = (r + 5 + r % 4, other + 3 + r % 7)
        case = flat(1, 2, 3, size, (r, other), padding=(r // 2, other // 3))
        check(case, pass_, "f64" if r % 5 == 0 else "f32", LAYOUTS["nhwc" if r % 3 else "nchw"], seed=r)


@pytest.mark.parametrize("pass_", PASSES)
def test_every_tile_edge(pass_):
    """Images from one pixel to several tiles, and channels around the vectors and the register tile."""
    for index, size in enumerate((1, 2, 3, 5, 8, 11, 12, 13, 24, 31, 32, 33, 50)):
        check(flat(2, 2, 3, (size, (size * 7 + index) % 29 + 1), 5, padding=2), pass_, seed=index)
    for index, channels in enumerate((1, 7, 8, 15, 16, 17, 31, 32, 33, 49)):
        case = flat(1, channels, 65 - channels, (9, 6 + index), 4, padding=2)
        check(case, pass_, layouts=LAYOUTS["nhwc" if index % 2 else "nchw"], seed=index)


@pytest.mark.parametrize("pass_", PASSES)
def test_large_filters_and_images(pass_):
    check(flat(1, 3, 5, (40, 45), (38, 51), padding=(19, 25)), pass_)  # larger than the image
    check(flat(1, 2, 2, (70, 3), (65, 1)), pass_)
    check(Case(1, 3, 2, (1, 1, 700), (1, 1, 90), (1, 1, 1), (0, 0, 40)), pass_)
    check(flat(2, 18, 20, (75, 61), 9, padding=4), pass_, threads=2)  # many tiles, several rows of a register tile


@pytest.mark.parametrize("epilogue", [("bias",), ("relu",), ("residual",), ("bias", "residual", "relu")], ids="+".join)
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
def test_epilogue(pass_, epilogue):
    for name in ("3x3-ragged", "1x1", "groups", "depthwise", "many-pixels", "stride-3", "1d"):
        for layout in ("nchw", "nhwc", "any"):
            check(CASES[name], pass_, layouts=LAYOUTS[layout], epilogue=epilogue)


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("pass_", PASSES)
def test_threads_and_small_workspace(pass_, threads):
    for index, case in enumerate(THREADED.values()):
        if max(case.c, case.k) <= 100:
            layouts = LAYOUTS["nhwc" if index % 2 else "nchw"]
            check(case, pass_, layouts=layouts, threads=threads, limit=1 << (28 if index % 3 else 16))


def bits(case, pass_, threads, limit=1 << 28):
    tensors, _ = operands(case, pass_)
    run_plan(make_plan(case, pass_, "fft", tensors, threads=threads, limit=limit), pass_, tensors)
    return tensors[COMPUTED[pass_]].clone()


@pytest.mark.parametrize("pass_", PASSES)
def test_sums_have_one_order(pass_):
    """From run to run and, as long as the tile is the same, for every number of threads."""
    case = flat(3, 20, 24, 21, 7, padding=3)
    assert torch.equal(bits(case, pass_, 2), bits(case, pass_, 2))
    case = flat(7, 20, 24, 2, 31, padding=15)  # for which there is only one tile to choose
    assert torch.equal(bits(case, pass_, 1), bits(case, pass_, 3))


@pytest.mark.parametrize("pass_", PASSES)
def test_workspace_limit(pass_):
    """Fewer tiles, filters or a smaller tile at a time, down to what one tile needs."""
    case = flat(4, 96, 80, 40, 5, padding=2)
    tensors, _ = operands(case, pass_)
    sizes = [
        make_plan(case, pass_, "fft", tensors, threads=2, limit=1 << bits).workspace_bytes for bits in (22, 24, 28)
    ]
    assert sizes[0] <= 1.3 * 2**22 and sizes[1] <= 1.3 * 2**24 and sizes == sorted(sizes) and sizes[0] < sizes[2]


@pytest.mark.parametrize("pass_", PASSES)
def test_empty(pass_):
    base = flat(2, 3, 4, 5, 3, padding=1)
    for change in ({"n": 0}, {"c": 0}, {"k": 0}, {"c": 0, "k": 0}, {"n": 0, "c": 0}):
        epilogue = ("bias", "relu") if pass_ != "grad_weight" else ()
        for threads in (1, 3):
            check(replace(base, **change), pass_, epilogue=epilogue, threads=threads)


def test_expanded_operands():
    """Strides of 0, as of an expanded tensor."""
    case = flat(3, 6, 8, 7, 3, padding=1)
    for pass_ in PASSES:
        tensors, _ = operands(case, pass_)
        for name in tensors:
            if name != COMPUTED[pass_]:
                tensors[name] = tensors[name][:1, :, :, :1].expand(case.shapes[name])
        run_plan(make_plan(case, pass_, "fft", tensors), pass_, tensors)
        expected = reference(case, pass_, tensors)
        torch.testing.assert_close(tensors[COMPUTED[pass_]].double(), expected, atol=1e-5, rtol=1e-5)


# What the choice of a tile must not make worse than the class allows: error over the largest output.
PRECISION = (
    "c64h56w56 k64r3s3 p1", "c256h14w14 k256r3s3 p1", "c64h27w27 k192r5s5 p2", "c64h30w30 k32r31s31 p15",
    "c3h64w64 k64r11s11 p5", "c32h40w40 k32r21s21 p10 g32",
)  # fmt: skip


@pytest.mark.parametrize("relu", [False, True], ids=["normal", "relu"])
def test_numeric_class(relu):
    """N(0, 1) inputs (or their positive part, whose mean is not 0), He-scaled weights: far below the class's 1e-5."""
    generator = torch.Generator().manual_seed(1)
    for text in PRECISION:
        p = parse(f"conv2d.forward n1{text} f32")
        x = torch.randn(1, p.c, *p.size, generator=generator)
        x = x.relu() if relu else x
        w = torch.randn(p.k, p.c // p.groups, *p.filter, generator=generator)
        w *= (2 / w[0].numel()) ** 0.5
        expected = torch.nn.functional.conv2d(x.double(), w.double(), None, p.stride, p.padding, p.dilation, p.groups)
        with pycv.use(backend="cpu", algorithm="fft"):
            y = functional.conv2d(x, w, None, p.stride, p.padding, p.dilation, p.groups)
        assert (y - expected).abs().max() <= 3e-6 * expected.abs().max(), text


def spread(x, w, padding):
    with pycv.use(backend="cpu", algorithm="fft"):
        return functional.conv2d(x, w, None, 1, padding), torch.nn.functional.conv2d(x, w, None, 1, padding)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("r", [1, 2, 3, 5, 9])
def test_non_finite_values_stay_in_their_tiles(r, value):
    """Never a finite result where there should be none; other images and far tiles keep theirs."""
    generator = torch.Generator().manual_seed(r)
    for size in (6, 17, 150):
        x = torch.randn(2, 5, 9, size, generator=generator)
        w = torch.randn(4, 5, r, r, generator=generator)
        x[0, 3, 4, 2] = value
        y, expected = spread(x, w, r // 2)
        finite = y.isfinite()
        assert (expected.isfinite() | ~finite).all()
        assert finite[1].all()
        if size == 150:
            assert finite[0, ..., -30:].all()
        torch.testing.assert_close(y[finite], expected[finite], atol=1e-4, rtol=1e-4)


def test_relu_hides_no_infinity():
    for size in range(1, 20):
        for r in (1, 2, 3):
            x, w = torch.ones(1, 2, size, size + 1), torch.rand(3, 2, r, r)
            x[0, 1, size // 2, size // 3] = torch.inf
            with pycv.use(backend="cpu", algorithm="fft"):
                y = functional.conv2d(x, w, None, 1, r // 2, activation="relu")
            bad = torch.nn.functional.conv2d(x, w, None, 1, r // 2).isinf()
            assert not y[bad].isfinite().any()


def test_gradients():
    """The op's gradients are grad_input and grad_weight of this algorithm; their own gradients follow."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 4, 6, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    for groups, stride, dilation in ((1, 1, 1), (2, 1, 2), (4, 2, 1)):
        w = torch.randn(4, 4 // groups, 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
        b = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)

        def f(x, w, b, rest=(stride, 1, dilation, groups)):
            return functional.conv2d(x, w, b, *rest)

        with pycv.use(backend="cpu", algorithm="fft"), registry.record() as log:
            assert torch.autograd.gradcheck(f, (x, w, b))
            assert torch.autograd.gradgradcheck(f, (x, w, b))
        ran = {
            (call.choice.kernel.algorithm, call.choice.kernel.pass_) for call in log if "conv" in call.choice.problem.op
        }
        assert {("fft", pass_) for pass_ in PASSES} <= ran


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("conv2d.forward n1c2h9w9 k3r2s2 u3 f32", "leave out"),
        ("conv2d.grad_input n1c2h5w5 k3r2s2 d3 f32", "leave out"),
        ("conv2d.forward n1c32h9w9 k32r3s3 f32 nchw16c", "layout nchw16c"),
    ],
)
def test_refusals(text, reason):
    problem = parse(text)
    kernel = next(k for k in registry.kernels(problem.op, problem.pass_) if k.algorithm == "fft")
    assert reason in (kernel.supports(problem) or "")


def test_cost_counts_what_is_done():
    """More of everything for more images, but not filters twice; half of the work for each of two threads."""
    case = flat(4, 64, 64, 64, 15, padding=7)
    costs = {}
    for n, threads in ((4, 1), (8, 1), (4, 2)):
        tensors, _ = operands(replace(case, n=n), "forward")
        costs[n, threads] = make_plan(replace(case, n=n), "forward", "fft", tensors, threads=threads).cost
    one, twice, half = costs[4, 1], costs[8, 1], costs[4, 2]
    for count in ("multiply_adds", "vector_elements"):
        assert getattr(half, count) < 0.8 * getattr(one, count) and getattr(one, count) < getattr(twice, count), count
    assert one.bytes < twice.bytes < 2.5 * one.bytes
    assert one.multiply_adds < case.n * case.c * case.k * 64 * 64 * 225 / 8
