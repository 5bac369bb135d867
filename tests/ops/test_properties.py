"""Properties of every kernel and op over shapes, arguments and memory, on data that compares exactly.

Two levels. Plans: every C++ kernel on raw memory with guards around it (tests/raw.py), against the NumPy reference.
Ops: tensors of every kind of memory that torch can make, against torch in float64, with gradients; fresh memory is NaN.
"""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import pycv
from pycv import functional as PF

from .. import draw
from ..backend import BACKEND, FOR_GPUS
from ..fuzz import check
from ..seed import properties
from .agreement import assert_agrees

pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")


# ---------------------------------------------------------------------------------------------- plans


@pytest.mark.parametrize("op", sorted(draw.FAMILIES))
@given(st.data())
@properties(50)
def test_plans(op, data):
    source = draw.Strategy(data)
    problem = draw.problem(source, (op,), draw.BUDGET // 4)
    variant = check.Variant(
        source.pick(draw.KINDS), source.integer(0, 99), source.pick((1, 2, 3)), source.pick((2**28, 0)),
        offset=source.integer(0, 3), prepare=source.pick((False, True)),
    )  # fmt: skip
    kernels = check.kernels(problem)
    assert kernels or not draw.is_public(problem), f"no kernel takes {problem}"
    for kernel in kernels:
        assert check.trial(problem, kernel, variant) is None


# ---------------------------------------------------------------------------------------------- ops


MEMORY = (
    "dense", "channels_last", "channel slice", "steps", "transposed", "expanded batch", "expanded pixels",
    "one element", "offset",
)  # fmt: skip


def tensor(source: draw.Source, shape: tuple[int, ...], dtype: torch.dtype, kind: str | None = None) -> torch.Tensor:
    """Sparse small integers in one of the kinds of memory that torch makes: ``kind``, or any."""
    kind = kind or source.pick(MEMORY)
    seed = torch.Generator().manual_seed(source.integer(0, 10**6))

    def values(*shape: int) -> torch.Tensor:
        sparse = torch.rand(shape, generator=seed) < 0.6
        return (torch.randint(-3, 4, shape, generator=seed) * sparse).to(dtype)

    if len(shape) == 1:
        return values(2 * shape[0])[::2] if kind == "steps" else values(*shape)
    n, c, *size = shape
    if kind == "channels_last":
        return values(n, *size, c).movedim(-1, 1)
    if kind == "channel slice":
        return values(n, *size, c + 3).movedim(-1, 1)[:, 1 : 1 + c]
    if kind == "steps":
        return values(*shape[:-1], 2 * shape[-1])[..., ::2]
    if kind == "transposed":
        return values(*reversed(shape)).permute(*reversed(range(len(shape))))
    if kind == "expanded batch":
        return values(1, c, *size).expand(shape)
    if kind == "expanded pixels":
        return values(n, c, *[1] * len(size)).expand(shape)
    if kind == "one element":
        return values(*[1] * len(shape)).expand(shape)
    if kind == "offset":
        return values(n * c * torch.Size(size).numel() + 1)[1:].view(shape)
    return values(*shape)


def conv_case(source: draw.Source, memory: str | None = None) -> dict:
    """Tensors and arguments of a convolution that torch accepts; ``memory`` is the kind of the input's."""
    rank = source.pick((1, 2, 2, 3))
    groups, inside, outside = source.pick((1, 1, 2, 3)), draw.extent(source, 17), draw.extent(source, 17)
    n, c, k = source.pick((1, 2, 3, 0)), groups * inside, groups * outside
    filter = tuple(source.pick((1, 2, 3)) for _ in range(rank))
    padding = tuple(source.integer(0, 3) for _ in range(rank))
    dilation = tuple(source.pick((1, 1, 2)) for _ in range(rank))
    least = [max(1, d * (f - 1) + 1 - 2 * p) for d, f, p in zip(dilation, filter, padding, strict=True)]
    size = tuple(low + source.integer(0, 16 if axis == 0 else 4) for axis, low in enumerate(least))
    dtype = source.pick((torch.float32, torch.float64))
    return {
        "rank": rank,
        "tensors": [
            tensor(source, (n, c, *size), dtype, memory),
            tensor(source, (k, inside, *filter), dtype),
            tensor(source, (k,), dtype) if source.integer(0, 1) else None,
        ],
        "arguments": {
            "stride": tuple(source.pick((1, 1, 2, 3)) for _ in range(rank)), "padding": padding,
            "dilation": dilation, "groups": groups,
        },
    }  # fmt: skip


def settings_of(source: draw.Source) -> dict:
    algorithm, limit = source.pick(("direct", "im2col", None)), source.pick((2**28, 0))
    # On GPUs direct is for few channels.
    return {"backend": BACKEND, "prefer" if FOR_GPUS else "algorithm": algorithm, "workspace_limit": limit}


@pytest.mark.parametrize("memory", MEMORY)
@given(st.data())
@properties(10)
def test_conv(memory, data):
    source = draw.Strategy(data)
    case = conv_case(source, memory)
    name, dtype = f"conv{case['rank']}d", case["tensors"][0].dtype
    with pycv.use(**settings_of(source)):
        assert_agrees(
            getattr(PF, name), getattr(F, name), case["tensors"], case["arguments"],
            grad_output=lambda y: tensor(source, tuple(y.shape), dtype), exact=True,
        )  # fmt: skip


@pytest.mark.parametrize("memory", MEMORY)
@given(st.data())
@properties(10)
def test_conv_transpose(memory, data):
    """Any arguments that leave something of the result."""
    source = draw.Strategy(data)
    case = conv_case(source)
    name, arguments = f"conv_transpose{case['rank']}d", case["arguments"]
    x, w, bias = case["tensors"]
    arguments["padding"] = tuple(
        min(p, d * (f - 1) // 2)
        for p, d, f in zip(arguments["padding"], arguments["dilation"], w.shape[2:], strict=True)
    )
    shape = (x.shape[0], w.shape[0], *(source.integer(1, 16 if axis == 0 else 4) for axis in range(case["rank"])))
    arguments["output_padding"] = tuple(
        source.integer(0, max(u, d) - 1) for u, d in zip(arguments["stride"], arguments["dilation"], strict=True)
    )
    bias = None if bias is None else tensor(source, (x.shape[1],), x.dtype)
    with pycv.use(**settings_of(source)):
        assert_agrees(
            getattr(PF, name), getattr(F, name), [tensor(source, shape, x.dtype, memory), w, bias], arguments,
            grad_output=lambda y: tensor(source, tuple(y.shape), x.dtype), exact=True,
        )  # fmt: skip


@given(st.data())
@properties(50)
def test_conv_with_epilogue(data):
    """relu(conv + bias + residual) and its gradients, the residual's too."""
    source = draw.Strategy(data)
    case = conv_case(source)
    name, dtype = f"conv{case['rank']}d", case["tensors"][0].dtype
    x, w, bias = case["tensors"]
    shape = tuple(getattr(F, name)(x.cpu().double(), w.cpu().double(), None, **case["arguments"]).shape)
    residual = tensor(source, shape, dtype) if source.integer(0, 2) else None
    activation = source.pick((None, "relu"))

    def ours(x, w, bias, residual, **arguments):
        return getattr(PF, name)(x, w, bias, **arguments, residual=residual, activation=activation)

    def theirs(x, w, bias, residual, **arguments):
        y = getattr(F, name)(x, w, bias, **arguments)
        y = y if residual is None else y + residual
        return torch.relu(y) if activation else y

    with pycv.use(**settings_of(source)):
        assert_agrees(
            ours, theirs, [x, w, bias, residual], case["arguments"],
            grad_output=lambda y: tensor(source, tuple(y.shape), dtype), exact=True,
        )  # fmt: skip


@given(st.data())
@properties(50)
def test_conv_spreads_nonfinite_input_as_torch_does(data):
    source = draw.Strategy(data)
    case = conv_case(source)
    name = f"conv{case['rank']}d"
    x, w, bias = case["tensors"]
    x, w = x.clone(), w + w.sign() + (w == 0)  # no zero weight: 0 * inf would be NaN in every term
    flat = x.reshape(-1) if x.is_contiguous() else x.flatten()
    for _ in range(source.integer(0, 3)):
        if flat.numel():
            flat[source.integer(0, flat.numel() - 1)] = source.pick((torch.nan, torch.inf, -torch.inf))
    x = flat.reshape(x.shape)
    with pycv.use(**settings_of(source)):
        assert_agrees(getattr(PF, name), getattr(F, name), [x, w, bias], case["arguments"], exact=True)


@pytest.mark.parametrize("weight_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("input_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_conv_keeps_torchs_memory_format(name, input_format, weight_format):
    x = torch.randn(2, 5, 7, 6).to(memory_format=input_format)
    w = torch.randn(5, 5, 3, 2).to(memory_format=weight_format)
    assert getattr(PF, name)(x, w).stride() == getattr(F, name)(x.cpu(), w.cpu()).stride()


@given(st.data())
@properties(50)
def test_relu(data):
    source = draw.Strategy(data)
    shape = tuple(source.integer(0, 9) for _ in range(source.pick((3, 4, 5))))
    x = tensor(source, shape, source.pick((torch.float32, torch.float64)))
    with pycv.use(backend=BACKEND):
        assert_agrees(PF.relu, F.relu, [x], {}, grad_output=lambda y: tensor(source, shape, x.dtype), exact=True)
