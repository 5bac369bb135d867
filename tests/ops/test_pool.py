"""Pooling against torch: its own samples and error inputs, layouts, awkward values and gradients of gradients."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing._internal.common_methods_invocations import op_db

import pycv
from pycv import functional as PF
from pycv import registry

from ..backend import BACKEND, DEVICE, for_cpu
from ..seed import sliced
from .agreement import gradients_hold, outcome

KINDS = ("max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool")
NAMES = [f"{kind}{rank}d" for kind in KINDS for rank in (1, 2, 3)]
OPS = {op.name.removeprefix("nn.functional."): op for op in op_db}
DTYPES = (torch.float32, torch.float64)
ARGUMENTS = ("input", "kernel_size", "stride", "padding", "dilation", "output_size", "divisor")


def assert_same(ours, theirs, name):
    """Values, indices, strides and, for a random grad_output, gradients; every call of ours ran on the CPU kernels."""
    x, run = ours
    x0, run0 = theirs
    expected = run0(x0)
    with pycv.use(backend=BACKEND), registry.record() as calls:
        computed = run(x)
        pairs = list(zip(*(t if isinstance(t, tuple) else (t,) for t in (computed, expected)), strict=True))
        grad_output = torch.randn_like(pairs[0][1])
        gradient = torch.autograd.grad(pairs[0][0], x, grad_output)[0]
    assert {call.choice.kernel.backend for call in calls} == {BACKEND}, name
    for got, wanted in pairs:
        torch.testing.assert_close(got, wanted, check_stride=True, equal_nan=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(pairs[0][1], x0, grad_output)[0], equal_nan=True)


def samples_of(name, dtype):
    """torch's samples. Its ``sample_inputs`` seeds all devices before each, which takes longer than all the rest."""
    op = OPS[name]
    return list(op.sample_inputs_func(op, DEVICE, dtype, requires_grad=False))


SAMPLES = [(name, dtype, index) for name in NAMES for dtype in DTYPES for index in range(len(samples_of(name, dtype)))]


@pytest.fixture(scope="module")
def samples():
    made: dict = {}

    def of(name, dtype):
        if (name, dtype) not in made:
            made[name, dtype] = samples_of(name, dtype)
        return made[name, dtype]

    return of


@pytest.mark.parametrize("name, dtype, index", sliced(SAMPLES, 400, id=lambda case: f"{case[0]}-{case[1]}-{case[2]}"))
def test_samples(name, dtype, index, samples):
    sample = samples(name, dtype)[index]
    leaves = [sample.input.detach().clone().requires_grad_() for _ in range(2)]
    ours = (leaves[0], lambda x: getattr(PF, name)(x, *sample.args, **sample.kwargs))
    theirs = (leaves[1], lambda x: getattr(F, name)(x, *sample.args, **sample.kwargs))
    if getattr(F, name)(sample.input, *sample.args, **sample.kwargs) is None or sample.input.numel() == 0:
        assert outcome(ours[1], leaves[0]) is None
        return
    assert_same(ours, theirs, name)


@pytest.mark.parametrize("name", [name for name in NAMES if OPS[name].error_inputs_func is not None])
def test_error_inputs(name):
    for sample in OPS[name].error_inputs(DEVICE):
        arguments = (sample.sample_input.input, *sample.sample_input.args)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = outcome(getattr(F, name), *arguments, **sample.sample_input.kwargs)
            raised = outcome(getattr(PF, name), *arguments, **sample.sample_input.kwargs)
        assert type(raised) is type(expected), f"{raised!r}, torch: {expected!r}"
        assert any(argument in str(raised) for argument in ARGUMENTS), raised


@pytest.mark.parametrize(
    "name, arguments, said",
    [
        ("max_pool2d", dict(kernel_size=0), "kernel_size"),
        ("max_pool2d", dict(kernel_size=3, stride=0), "stride"),
        ("max_pool2d", dict(kernel_size=3, padding=2), "padding"),
        ("max_pool2d", dict(kernel_size=3, padding=-1), "padding"),
        ("max_pool2d", dict(kernel_size=3, dilation=0), "dilation"),
        ("max_pool2d", dict(kernel_size=(3, 3, 3)), "kernel_size"),
        ("max_pool2d", dict(kernel_size=3, dilation=2**62, padding=2**62), "padding"),
        ("max_pool2d", dict(kernel_size=99), "99"),
        ("max_pool2d", dict(kernel_size="3"), "kernel_size"),
        ("avg_pool2d", dict(kernel_size=3, divisor_override=0), "divisor"),
        ("avg_pool2d", dict(kernel_size=3, padding=2), "padding"),
        ("adaptive_avg_pool2d", dict(output_size=-1), "output_size"),
        ("adaptive_max_pool2d", dict(output_size=(1, 2, 3)), "output_size"),
    ],
)
def test_bad_arguments_are_named(name, arguments, said):
    x = torch.randn(2, 3, 9, 9)
    expected, raised = outcome(getattr(F, name), x, **arguments), outcome(getattr(PF, name), x, **arguments)
    assert expected is not None and raised is not None
    assert said in str(raised)


@pytest.mark.parametrize(
    "name, argument",
    [
        *(("max_pool2d", argument) for argument in ("kernel_size", "stride", "padding", "dilation")),
        *(("avg_pool2d", argument) for argument in ("kernel_size", "stride", "padding", "divisor_override")),
        ("adaptive_avg_pool2d", "output_size"),
        ("adaptive_max_pool2d", "output_size"),
    ],
)
def test_integers_of_more_than_64_bits(name, argument):
    """torch's class of error, and the argument and its value; or a result that no memory holds."""
    x = torch.randn(2, 3, 9, 9)
    values = [2**63, -(2**63) - 1, *([] if argument == "divisor_override" else [(2**63, 3), (1, -(2**64))])]
    for value in values:
        given = {} if argument in ("kernel_size", "output_size") else {"kernel_size": 3}
        expected, raised = (outcome(getattr(f, name), x, **given, **{argument: value}) for f in (F, PF))
        assert type(raised) is type(expected)
        assert argument in str(raised) and str(value) in str(raised)
    if argument == "output_size":
        for value in (2**30, 2**62):
            with pytest.raises(RuntimeError, match=str(value)):
                getattr(PF, name)(x, value)


def layouts(x):
    """The same values dense, channels_last, transposed in place, and as a slice of something larger."""
    yield "nchw", x
    yield "nhwc", x.to(memory_format=torch.channels_last)
    yield "transposed", x.transpose(2, 3).contiguous().transpose(2, 3)
    n, c, h, w = x.shape
    sliced_ = torch.full((n, c + 3, h, w), np.nan, dtype=x.dtype)
    sliced_[:, 1 : c + 1] = x
    yield "slice", sliced_[:, 1 : c + 1]
    yield "expanded", x[:1].expand_as(x)


WINDOWS = [
    dict(kernel_size=3, stride=2, padding=1),
    dict(kernel_size=2, stride=2),
    dict(kernel_size=(5, 2), stride=(1, 3), padding=(2, 1), ceil_mode=True),
    dict(kernel_size=3, stride=1, padding=1),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 19, 37), (3, 33, 9, 8), (1, 70, 7, 7), (1, 2, 6, 2100)], ids=str)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("kind", ["max_pool2d", "avg_pool2d"])
def test_layouts_and_vector_edges(kind, window, shape, dtype):
    base = torch.randn(shape, dtype=dtype)
    base.view(-1)[::17] = base.view(-1)[0]  # ties
    for layout, x in layouts(base):
        leaves = [x.detach().requires_grad_(), x.detach().requires_grad_()]
        kwargs = window | ({"return_indices": True} if kind == "max_pool2d" else {"count_include_pad": False})
        ours = (leaves[0], lambda x, kwargs=kwargs: getattr(PF, kind)(x, **kwargs))
        theirs = (leaves[1], lambda x, kwargs=kwargs: getattr(F, kind)(x, **kwargs))
        assert_same(ours, theirs, f"{kind} {layout}")


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [1, (1, 1), 7, (3, 5), (None, 4)], ids=str)
@pytest.mark.parametrize("kind", ["adaptive_max_pool2d", "adaptive_avg_pool2d"])
def test_adaptive(kind, size, channels_last):
    x = torch.randn(2, 37, 23, 14, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    leaves = [x.detach().requires_grad_(), x.detach().requires_grad_()]
    assert_same(
        (leaves[0], lambda x: getattr(PF, kind)(x, size)), (leaves[1], lambda x: getattr(F, kind)(x, size)), kind
    )


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("values", ["nan", "inf", "-inf", "ties", "mixed"])
def test_max_of_awkward_values(values, channels_last):
    x = torch.randint(-2, 3, (2, 20, 18, 35)).float()
    flat = x.view(-1)
    if values in ("nan", "mixed"):
        flat[torch.randperm(flat.numel())[:2000]] = np.nan
    if values in ("inf", "mixed"):
        flat[torch.randperm(flat.numel())[:2000]] = np.inf
    if values in ("-inf", "mixed"):
        x[:, :, :9] = -np.inf
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    for kwargs in (*WINDOWS, dict(kernel_size=2, stride=2, dilation=3)):
        with pycv.use(backend=BACKEND):
            computed = PF.max_pool2d(x, **kwargs, return_indices=True)
            plain = PF.max_pool2d(x, **kwargs)
        expected = F.max_pool2d(x, **kwargs, return_indices=True)
        for got, wanted in zip(computed, expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(plain, expected[0], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "permuted"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: PF.max_pool2d(x, 3, 2, 1),
        lambda x: PF.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        lambda x: PF.adaptive_avg_pool2d(x, (3, 2)),
        lambda x: PF.adaptive_max_pool2d(x, (3, 2)),
    ],
    ids=["max", "avg", "adaptive_avg", "adaptive_max"],
)
def test_gradients_of_gradients(function, layout):
    x = torch.randperm(2 * 3 * 5 * 6).double().view(2, 3, 5, 6) / 10  # no near ties
    x = {"nchw": x, "nhwc": x.to(memory_format=torch.channels_last), "permuted": x.view(2, 3, 6, 5).mT}[layout]
    assert gradients_hold(function, (x.requires_grad_(),))


@for_cpu  # the CUDA kernels take bfloat16
def test_what_has_no_kernel_goes_to_torch():
    x = torch.randn(2, 3, 8, 8, dtype=torch.bfloat16)
    with registry.record() as calls:
        y = PF.max_pool2d(x, 2)
    assert torch.equal(y, F.max_pool2d(x, 2))
    assert [call.choice.kernel.backend for call in calls] == ["torch"] and "bf16" in calls[0].choice.rejected[0]


@pytest.mark.parametrize(
    "name, shape, output_size",
    [
        ("adaptive_avg_pool2d", (2, 3, 0, 4), 1),
        ("adaptive_avg_pool2d", (3, 4), 1),
        ("adaptive_max_pool2d", (0, 12, 4), (7, 7)),
        ("adaptive_avg_pool2d", (0, 3, 5, 5), 2),
        ("adaptive_avg_pool2d", (1, 2, 6, 6), (0, 2)),
        ("adaptive_avg_pool3d", (1, 2, 3, 3, 3), 0),
        ("adaptive_max_pool2d", (1, 2, 6, 6), (2, 0)),
    ],
    ids=str,
)
def test_odd_inputs_that_torch_takes(name, shape, output_size):
    x = torch.randn(shape)
    torch.testing.assert_close(getattr(PF, name)(x, output_size), getattr(F, name)(x, output_size), equal_nan=True)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d"])
def test_a_tensor_among_the_arguments_counts_by_its_value(name):
    x, size = torch.randn(2, 3, 8, 8), torch.tensor(1)
    for value in (1, 2):
        size.fill_(value)
        for given in (size, (size, 2)):
            expected = value if given is size else (value, 2)
            assert getattr(PF, name)(x, given).shape == getattr(F, name)(x, expected).shape


def test_indices_are_not_computed_unless_needed():
    x = torch.randn(2, 3, 8, 8)
    with registry.record() as calls:
        PF.max_pool2d(x, 2)
        PF.max_pool2d(x, 2, return_indices=True)
        PF.max_pool2d(x.requires_grad_(), 2)
        PF.max_pool2d(x, 2, return_indices=True)
        PF.max_pool2d(x, 17, 1, 8)  # 289 elements
        PF.max_pool2d(x, 2, 1, 1, dilation=9, ceil_mode=True)  # windows without an element
        PF.adaptive_max_pool2d(x, 3)
    assert [call.choice.problem.indices for call in calls] == ["", "int64", "offset", *["int64"] * 4]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_gradient_keeps_one_byte_per_output(memory_format):
    x = torch.randn(2, 16, 9, 11).contiguous(memory_format=memory_format).requires_grad_()
    kept = []
    with (
        pycv.use(backend=BACKEND),
        registry.record() as calls,
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
    ):
        y = PF.max_pool2d(x, 3, 2, 1)
        torch.autograd.grad(y.sum(), x)
    assert [(t.dtype, t.shape) for t in kept] == [(torch.uint8, y.shape)]
    assert [str(call.choice.problem).split()[-1] for call in calls] == ["offsets", "offsets"]


OFFSETS = [  # rank, size, window
    (1, (40,), dict(kernel_size=4, stride=3, padding=2)),
    (1, (300,), dict(kernel_size=256, stride=9, padding=128)),  # offsets up to 255
    (2, (19, 37), dict(kernel_size=3, stride=2, padding=1)),
    (2, (12, 35), dict(kernel_size=(5, 2), stride=(1, 3), padding=(2, 1), ceil_mode=True)),
    (2, (20, 23), dict(kernel_size=(3, 4), stride=2, padding=(1, 2), dilation=(2, 3))),
    (2, (18, 17), dict(kernel_size=16, stride=1, padding=8)),
    (2, (9, 8), dict(kernel_size=2, stride=3, dilation=4)),  # gaps between the windows, and in them
    (3, (6, 7, 9), dict(kernel_size=(2, 3, 3), stride=(2, 1, 2), padding=1)),
]


@pytest.mark.parametrize("values", ["ties", "nan", "-inf"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("rank, size, window", OFFSETS, ids=str)
def test_gradients_by_offsets(rank, size, window, channels_last, values):
    """Exactly torch's, whoever wins a tie: to the first of equals, the last NaN, the first of all -inf (of which torch
    takes another one in channels_last_3d)."""
    x = torch.randint(-2, 3, (2, 21, *size), dtype=torch.float32)
    if values == "nan":
        x.view(-1)[torch.randperm(x.numel())[: x.numel() // 10]] = np.nan
    if values == "-inf":
        x[..., : size[-1] * 2 // 3] = -np.inf
    name = f"max_pool{rank}d"
    expected = getattr(F, name)(leaf := x.detach().requires_grad_(), **window)
    grad_output = torch.randint(-8, 9, expected.shape, dtype=torch.float32)  # sums of these are exact
    expected_gradient = torch.autograd.grad(expected, leaf, grad_output)[0]
    if channels_last and rank > 1:
        x = x.to(memory_format=torch.channels_last if rank == 2 else torch.channels_last_3d)
    with pycv.use(backend=BACKEND), registry.record() as calls:
        computed = getattr(PF, name)(leaf := x.detach().requires_grad_(), **window)
        gradient = torch.autograd.grad(computed, leaf, grad_output)[0]
    assert [call.choice.problem.indices for call in calls] == ["offset", "offset"]
    torch.testing.assert_close(computed, expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=0)


@pytest.mark.parametrize("rank, size, window", OFFSETS[:1] + OFFSETS[3:5] + OFFSETS[6:], ids=str)
def test_second_gradients_by_offsets(rank, size, window):
    """The places that offsets name, found by torch's ops: the gather of the second derivative, and the scatter that
    takes the kernel's place under a transform."""
    x = torch.randn(2, 3, *size, dtype=torch.float64).requires_grad_()
    name = f"max_pool{rank}d"
    found = []
    for functions in (PF, F):
        y = getattr(functions, name)(x, **window)
        grad_output = torch.ones_like(y).requires_grad_()
        first = torch.autograd.grad(y, x, grad_output, create_graph=True)[0]
        weights = torch.arange(x.numel(), dtype=torch.float64).view(x.shape)
        several = torch.stack([torch.ones_like(y), torch.full_like(y, 3)])
        batched = torch.autograd.grad(y, x, several, is_grads_batched=True, retain_graph=True)[0]
        found.append((first, torch.autograd.grad(first, grad_output, weights)[0], batched))
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)
