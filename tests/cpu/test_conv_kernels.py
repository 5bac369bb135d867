"""The C++ convolution kernels at plan level, against a float64 computation tap by tap.

Integer data: sums of small integers are exact in every order, so results must be equal, not close. Real data: error
per element at most a few ulp of the sum of absolute products.
"""

from dataclasses import dataclass, replace

import pytest
import torch

from pycv import _cpu

ALGORITHMS = ("depthwise", "im2col", "direct")
PASSES = ("forward", "grad_input", "grad_weight")
DTYPES = {"f32": torch.float32, "f64": torch.float64}
GUARD = 64  # elements around every computed tensor that must keep their value


@dataclass(frozen=True)
class Case:
    """A convolution over (depth, height, width)."""

    n: int
    c: int
    k: int
    size: tuple
    filter: tuple
    stride: tuple = (1, 1, 1)
    padding: tuple = (0, 0, 0)
    dilation: tuple = (1, 1, 1)
    groups: int = 1
    out: tuple = ()

    @property
    def output_size(self):
        if self.out:
            return self.out
        axes = zip(self.size, self.filter, self.stride, self.padding, self.dilation, strict=True)
        return tuple((i + 2 * p - d * (f - 1) - 1) // u + 1 for i, f, u, p, d in axes)

    @property
    def shapes(self):
        return {
            "input": (self.n, self.c, *self.size),
            "weight": (self.k, self.c // self.groups, *self.filter),
            "output": (self.n, self.k, *self.output_size),
        }


def flat(n, c, k, size, filter, stride=1, padding=0, dilation=1, groups=1, out=None):
    """A two-dimensional case; a single number stands for both axes."""
    pair = lambda v: tuple(v) if isinstance(v, tuple) else (v, v)  # noqa: E731
    return Case(
        n, c, k, (1, *pair(size)), (1, *pair(filter)), (1, *pair(stride)), (0, *pair(padding)), (1, *pair(dilation)),
        groups, (1, *pair(out)) if out else (),
    )  # fmt: skip


COMPUTED = {"forward": "output", "grad_input": "input", "grad_weight": "weight"}


def reference(case, pass_, tensors):
    """float64, one einsum per filter tap over a padded input that is as large as the windows need."""
    t = {name: tensor.double() for name, tensor in tensors.items() if name != COMPUTED[pass_]}
    shapes, g = case.shapes, case.groups
    axes = list(zip(case.size, case.filter, case.output_size, case.stride, case.padding, case.dilation, strict=True))
    extent = [max(p + i, (o - 1) * u + (f - 1) * d + 1) for i, f, o, u, p, d in axes]
    inner = tuple(slice(p, p + i) for i, _, _, _, p, _ in axes)
    padded = torch.zeros(case.n, g, case.c // g, *extent, dtype=torch.float64)
    if pass_ != "grad_input":
        padded[(..., *inner)] = t["input"].reshape(case.n, g, case.c // g, *case.size)
    split = {
        "weight": (g, case.k // g, *shapes["weight"][1:]),
        "output": (case.n, g, case.k // g, *case.output_size),
    }
    w = t["weight"].reshape(split["weight"]) if "weight" in t else torch.zeros(split["weight"], dtype=torch.float64)
    y = t["output"].reshape(split["output"]) if "output" in t else torch.zeros(split["output"], dtype=torch.float64)
    for tap in torch.cartesian_prod(*(torch.arange(f) for f in case.filter)).reshape(-1, 3).tolist():
        window = tuple(
            slice(r * d, r * d + (o - 1) * u + 1, u) if o else slice(0, 0)
            for r, (_, _, o, u, _, d) in zip(tap, axes, strict=True)
        )
        x, wt = padded[(..., *window)], w[(..., *tap)]
        if pass_ == "forward":
            y += torch.einsum("ngcdhw,gkc->ngkdhw", x, wt)
        elif pass_ == "grad_input":
            x += torch.einsum("ngkdhw,gkc->ngcdhw", y, wt)
        else:
            wt += torch.einsum("ngkdhw,ngcdhw->gkc", y, x)
    if pass_ == "grad_input":
        return padded[(..., *inner)].reshape(shapes["input"])
    return (y if pass_ == "forward" else w).reshape(shapes[COMPUTED[pass_]])


def laid_out(values, layout):
    """A copy of `values` in the given layout. Names ending in + lie in a wider buffer; `any` has no order at all."""
    if layout.startswith("nchw"):
        order = list(range(5))
    elif layout.startswith("nhwc"):
        order = [0, 2, 3, 4, 1]
    else:
        order = [4, 1, 0, 3, 2]
    shape = [values.shape[i] for i in order]
    buffer = torch.full([s + 3 for s in shape] if layout.endswith("+") else shape, torch.nan, dtype=values.dtype)
    view = buffer[tuple(slice(1, 1 + s) for s in shape)] if layout.endswith("+") else buffer
    view = view.permute([order.index(i) for i in range(5)])
    return view.copy_(values)


def guarded(shape, layout, dtype):
    """A NaN tensor to compute into, and its whole buffer with guard elements, to see that only it is written."""
    like = laid_out(torch.zeros(shape, dtype=dtype), layout)
    storage = like.untyped_storage().nbytes() // like.element_size()
    buffer = torch.full((storage + 2 * GUARD,), torch.nan, dtype=dtype)
    return buffer.as_strided(like.shape, like.stride(), like.storage_offset() + GUARD), buffer


def aligned_bytes(count):
    """`count` bytes of 64-byte aligned memory full of NaN."""
    buffer = torch.full((count // 4 + 32,), torch.nan)
    offset = -buffer.data_ptr() % 64 // 4
    return buffer[offset:]


def make_plan(case, pass_, algorithm, tensors, residual=None, epilogue=(), threads=1, limit=1 << 28):
    dtype = "f64" if tensors["input"].dtype == torch.float64 else "f32"
    strides = {name: [*t.stride(), 1] for name, t in tensors.items()}
    return _cpu.conv_plan(
        algorithm, pass_, dtype, case.n, case.c, case.k, case.groups, case.size, case.filter, case.output_size,
        case.stride, case.padding, case.dilation, strides["input"], strides["weight"], strides["output"],
        [*residual.stride(), 1] if residual is not None else [0, 0, 0, 0, 0, 1],
        "bias" in epilogue, "residual" in epilogue, "relu" in epilogue, False, False, threads, limit,
    )  # fmt: skip


def run_plan(plan, pass_, tensors, bias=None, residual=None):
    weight, workspace = tensors["weight"], aligned_bytes(plan.workspace_bytes)
    if pass_ != "grad_weight" and plan.prepared_weight_bytes:
        prepared = aligned_bytes(plan.prepared_weight_bytes)
        plan.prepare_weight(weight.data_ptr(), prepared.data_ptr())
        weight = prepared
    plan.run(
        tensors["input"].data_ptr(), weight.data_ptr(), tensors["output"].data_ptr(),
        bias.data_ptr() if bias is not None else 0,
        residual.data_ptr() if residual is not None else 0, workspace.data_ptr(),
    )  # fmt: skip


def integers(shape, dtype, generator):
    """Sparse small integers: every partial sum of the tests is exact in float32."""
    values = torch.randint(-4, 5, shape, generator=generator)
    return (values * (torch.rand(shape, generator=generator) < 0.5)).to(dtype)


def check(
    case, pass_, algorithm, dtype="f32", layouts=("nchw", "nchw", "nchw"), epilogue=(), threads=1, limit=1 << 28,
    data=integers, seed=0,
):  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    computed, dtype = COMPUTED[pass_], DTYPES[dtype]
    tensors, buffer = {}, None
    for name, layout in zip(("input", "weight", "output"), layouts, strict=True):
        if name == computed:
            tensors[name], buffer = guarded(case.shapes[name], layout, dtype)
        else:
            tensors[name] = laid_out(data(case.shapes[name], dtype, generator), layout)
    shape = case.shapes[computed]
    bias = data((shape[1],), dtype, generator) if "bias" in epilogue else None
    layout = layouts[("input", "weight", "output").index(computed)]
    residual = laid_out(data(shape, dtype, generator), layout) if "residual" in epilogue else None
    plan = make_plan(case, pass_, algorithm, tensors, residual, epilogue, threads, limit)
    run_plan(plan, pass_, tensors, bias, residual)

    expected = reference(case, pass_, tensors)
    if bias is not None:
        expected = expected + bias.double().reshape(1, -1, 1, 1, 1)
    if residual is not None:
        expected = expected + residual.double()
    if "relu" in epilogue:
        expected = expected.relu()
    actual = tensors[computed].double()
    if data is integers:
        bound = torch.zeros_like(expected)
    else:
        sizes = reference(case, pass_, {name: t.abs() for name, t in tensors.items()})
        terms = {"forward": case.c, "grad_input": case.k, "grad_weight": case.n}[pass_]
        bound = sizes * torch.finfo(dtype).eps * (8 + terms**0.5) + torch.finfo(dtype).eps * expected.abs()
        bound = bound + (4 * torch.finfo(dtype).eps if epilogue else 0)
    wrong = ~((actual - expected).abs() <= bound)
    assert not wrong.any(), (
        f"{wrong.sum().item()} of {wrong.numel()} elements wrong, first at {wrong.nonzero()[0].tolist()}: "
        f"{actual[wrong][0].item()} instead of {expected[wrong][0].item()}"
    )
    tensors[computed].fill_(torch.nan)
    assert buffer.isnan().all(), "elements outside the computed tensor were written"


def normal(shape, dtype, generator):
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


CASES = {
    "lenet": flat(2, 1, 6, 12, 5),
    "3x3": flat(2, 8, 16, 9, 3, padding=1),
    "3x3-ragged": flat(1, 13, 17, (7, 11), 3, padding=1),
    "1x1": flat(2, 20, 33, 7, 1),
    "1x1-stride": flat(2, 5, 9, 9, 1, stride=2),
    "1x1-padding": flat(1, 3, 5, 5, 1, padding=1),
    "stem": flat(1, 3, 20, 23, 7, stride=2, padding=3),
    "alexnet": flat(1, 3, 9, 35, 11, stride=4, padding=2),
    "stride-3": flat(1, 4, 6, 14, 3, stride=3, padding=1),
    "stride-over-filter": flat(1, 3, 4, 13, 2, stride=3),
    "uneven": flat(2, 3, 7, (9, 17), (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 3)),
    "dilation": flat(1, 6, 5, 13, 3, padding=2, dilation=2),
    "dilation-stride": flat(1, 3, 5, 17, 3, stride=2, padding=3, dilation=3),
    "dilation-stride-even": flat(1, 3, 5, 17, 3, stride=4, padding=3, dilation=2),
    "groups": flat(2, 12, 18, 8, 3, padding=1, groups=3),
    "groups-one-channel-out": flat(1, 12, 4, 8, 3, padding=1, groups=4),
    "depthwise": flat(2, 19, 19, 9, 3, padding=1, groups=19),
    "depthwise-wide": flat(1, 3, 3, (4, 70), 3, padding=1, groups=3),
    "depthwise-stride": flat(1, 20, 20, 11, 3, stride=2, padding=1, groups=20),
    "depthwise-multiplier": flat(1, 5, 15, 8, 3, padding=1, groups=5),
    "1d": Case(2, 5, 7, (1, 1, 40), (1, 1, 4), (1, 1, 2), (0, 0, 3), (1, 1, 2)),
    "3d": Case(2, 3, 5, (5, 6, 7), (3, 2, 3), (1, 2, 1), (1, 0, 2), (2, 1, 1)),
    "3d-stride": Case(1, 4, 6, (6, 7, 9), (3, 3, 3), (2, 2, 2), (1, 1, 1)),
    "filter-over-input": flat(1, 3, 4, 2, 5, padding=3),
    "padding-over-filter": flat(1, 2, 3, 3, 2, padding=4),
    "right-padding": flat(1, 4, 5, 6, 4, padding=1, out=6),
    "fewer-windows": flat(1, 4, 5, 9, 3, padding=1, out=4),
    "more-windows": flat(1, 3, 4, 5, 3, stride=2, padding=1, out=5),
    "many-channels": flat(1, 300, 40, 5, 3, padding=1),
    "many-outputs": flat(1, 7, 130, 6, 3, padding=1),
    "many-pixels": flat(1, 3, 5, (40, 61), 3, padding=1),
    "one-pixel": flat(1, 40, 50, 1, 1),
    "batch": flat(9, 4, 6, 4, 3, padding=1),
}
LAYOUTS = {
    "nchw": ("nchw", "nchw", "nchw"),
    "nhwc": ("nhwc", "nhwc", "nhwc"),
    "nhwc-plain-weight": ("nhwc", "nchw", "nhwc"),
    "mixed": ("nchw", "nchw", "nhwc"),
    "slices": ("nhwc+", "nchw+", "nchw+"),
    "any": ("any", "any", "any"),
}


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", CASES)
def test_exact_on_integers(name, algorithm, pass_):
    for layout in ("nchw", "nhwc"):
        check(CASES[name], pass_, algorithm, layouts=LAYOUTS[layout])


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["3x3-ragged", "uneven", "groups", "depthwise", "3d", "1x1", "dilation-stride", "1d"])
def test_every_layout_and_f64(name, algorithm, pass_):
    for layouts in LAYOUTS.values():
        check(CASES[name], pass_, algorithm, layouts=layouts, dtype="f64")
        check(CASES[name], pass_, algorithm, layouts=layouts, dtype="f32")


@pytest.mark.parametrize("epilogue", [("bias",), ("relu",), ("residual",), ("bias", "residual", "relu")], ids="+".join)
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_epilogue(algorithm, pass_, epilogue):
    for name in ("3x3-ragged", "1x1", "groups", "depthwise", "many-channels", "stride-over-filter", "3d"):
        for layout in ("nchw", "nhwc", "any"):
            check(CASES[name], pass_, algorithm, layouts=LAYOUTS[layout], epilogue=epilogue)


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_error_on_real_data(algorithm, pass_):
    for name in ("3x3", "many-channels", "stem", "depthwise", "many-pixels"):
        for dtype in DTYPES:
            check(CASES[name], pass_, algorithm, dtype=dtype, data=normal, seed=3)


# Large enough that every plan really uses eight threads.
THREADED = {
    "3x3": flat(2, 24, 40, 20, 3, padding=1),
    "1x1": flat(2, 60, 70, 20, 1),
    "few-channels": flat(1, 3, 40, (61, 67), 5, padding=2),  # grad_weight splits its depth over the threads
    "strided": flat(2, 30, 33, 31, 3, stride=2, padding=1),
    "groups": flat(2, 36, 36, 24, 3, padding=1, groups=3),
    "depthwise": flat(2, 40, 40, 20, 3, padding=1, groups=40),
    "one-pixel": flat(1, 1300, 1400, 1, 1),
    "batch": flat(19, 20, 30, 12, 3, padding=1),
}


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_threads(algorithm, pass_, threads):
    for case in THREADED.values():
        for layout in ("nchw", "nhwc"):
            check(case, pass_, algorithm, layouts=LAYOUTS[layout], threads=threads)


@pytest.mark.parametrize("pass_", PASSES)
def test_small_workspace(pass_):
    for name in ("3x3", "1x1", "many-channels", "many-pixels", "3d"):
        for layout in ("nchw", "nhwc"):
            check(CASES[name], pass_, "im2col", layouts=LAYOUTS[layout], limit=1 << 14)
    check(THREADED["3x3"], pass_, "im2col", limit=1 << 14, threads=2)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("pass_", PASSES)
def test_tile_edges(pass_, algorithm):
    """Channels and pixels around multiples of every register tile."""
    for index, width in enumerate((1, 2, 5, 7, 8, 13, 14, 15, 16, 17, 31, 32, 33)):
        for channels in (1, 3, 4, 6, 7, 14, 15, 16, 17, 32, 33):
            case = flat(1, 3, channels, (2, width), 1 if index % 2 else (1, 3), padding=0 if index % 2 else (0, 1))
            if pass_ == "grad_input":
                case = replace(case, c=channels, k=3)
            check(case, pass_, algorithm, layouts=LAYOUTS["nhwc" if channels % 2 else "nchw"])
            check(case, pass_, algorithm, layouts=LAYOUTS["nchw" if channels % 2 else "nhwc"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("pass_", PASSES)
def test_empty(pass_, algorithm):
    base = flat(2, 3, 4, 5, 3, padding=1)
    for change in ({"n": 0}, {"c": 0}, {"k": 0}, {"c": 0, "k": 0}, {"n": 0, "c": 0}):
        epilogue = ("bias", "relu") if pass_ != "grad_weight" else ()
        for threads in (1, 3):
            check(replace(base, **change), pass_, algorithm, epilogue=epilogue, threads=threads)
            check(replace(base, **change), pass_, algorithm, "f64", LAYOUTS["nhwc"], epilogue, threads)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_expanded_operands(algorithm):
    """Strides of 0, as of an expanded tensor."""
    case = flat(3, 6, 8, 7, 3, padding=1)
    for pass_ in PASSES:
        tensors = {name: integers(shape, torch.float32, torch.Generator()) for name, shape in case.shapes.items()}
        for name in tensors:
            if name != COMPUTED[pass_]:
                tensors[name] = tensors[name][:1, :, :, :1].expand(case.shapes[name])
        tensors[COMPUTED[pass_]].fill_(torch.nan)
        run_plan(make_plan(case, pass_, algorithm, tensors), pass_, tensors)
        assert torch.equal(tensors[COMPUTED[pass_]].double(), reference(case, pass_, tensors)), pass_


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_non_finite_values_stay_in_their_windows(algorithm, layout):
    case = flat(1, 20, 40, 9, 3, padding=1)
    generator = torch.Generator().manual_seed(5)
    x = integers(case.shapes["input"], torch.float32, generator)
    x[0, 3, 0, 4, 4], x[0, 7, 0, 0, 0] = torch.inf, torch.nan
    w = torch.rand(case.shapes["weight"], generator=generator) + 1
    tensors = {
        "input": laid_out(x, layout),
        "weight": w,
        "output": laid_out(torch.zeros(case.shapes["output"]), layout),
    }
    run_plan(make_plan(case, "forward", algorithm, tensors), "forward", tensors)
    expected = torch.nn.functional.conv2d(x[:, :, 0], w[:, :, 0], padding=1)
    y = tensors["output"][:, :, 0]
    assert torch.equal(y.isnan(), expected.isnan()) and torch.equal(y.isinf(), expected.isinf())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_relu_keeps_nan(algorithm):
    case = flat(1, 3, 4, 5, 3, padding=1)
    tensors = {name: torch.full(shape, torch.nan) for name, shape in case.shapes.items()}
    run_plan(make_plan(case, "forward", algorithm, tensors, epilogue=("relu",)), "forward", tensors)
    assert tensors["output"].isnan().all()
