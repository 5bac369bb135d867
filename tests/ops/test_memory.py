"""Every operation besides convolution on every kind of memory, batched or not, beside torch in float64.

Input and grad_output come dense, channels_last, sliced, strided, transposed and expanded; fresh memory is NaN.
"""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import pycv
from pycv import functional as PF

from .. import draw
from ..seed import properties
from .test_properties import _fresh_memory_is_nan, tensor  # noqa: F401 (a fixture)

WINDOW = {"kernel_size": 3, "stride": 2, "padding": 1}
POOLS = {
    f"{name}{rank}d": (rank, arguments)
    for rank in (1, 2, 3)
    for name, arguments in (
        ("max_pool", WINDOW | {"ceil_mode": True}),
        ("avg_pool", WINDOW | {"count_include_pad": False}),
        ("adaptive_max_pool", {"output_size": 3}),
        ("adaptive_avg_pool", {"output_size": 3}),
    )
}


def outputs(function, x, others, grad_output, arguments):
    """Results and gradients of a call, as a flat list."""
    leaves = [t.detach().requires_grad_() for t in (x, *others)]
    y = function(*leaves, **arguments)
    results = y if isinstance(y, tuple) else (y,)
    return [*results, *torch.autograd.grad(results[0], leaves, grad_output)]


def assert_same(name, source, x, others, arguments, exact, tolerance=1e-6):
    """Against torch in float64: equal, or within ``tolerance`` of the largest element."""
    ours, theirs = getattr(PF, name), getattr(F, name, None) or getattr(torch, name)
    y = theirs(x.double(), *(t.double() for t in others), **arguments)
    shape = tuple((y[0] if isinstance(y, tuple) else y).shape)
    grad = tensor(source, shape, x.dtype) if len(shape) > 2 else torch.randint(-3, 4, shape).to(x.dtype)
    with pycv.use(backend="cpu"):
        computed = outputs(ours, x, others, grad, arguments)
    expected = outputs(theirs, x.double(), [t.double() for t in others], grad.double(), arguments)
    for got, want in zip(computed, expected, strict=True):
        assert got.dtype == (x.dtype if want.is_floating_point() else want.dtype)
        slack = 0.0 if exact or not want.numel() else tolerance * float(want.detach().abs().max())
        torch.testing.assert_close(got.to(want.dtype), want, rtol=0, atol=slack)


def image(source, rank, least=1):
    """(N, C, spatial...), at times without the batch axis."""
    n, c = source.pick((1, 2, 3)), draw.extent(source, 33)
    size = tuple(source.integer(least, 19 if axis == 0 else 6) for axis in range(rank))
    x = tensor(source, (n, c, *size), source.pick((torch.float32, torch.float64)))
    return x if source.integer(0, 4) else x[0]


@pytest.mark.parametrize("name", POOLS)
@given(st.data())
@properties(20)
def test_pooling(name, data):
    rank, arguments = POOLS[name]
    source = draw.Strategy(data)
    if "max" in name and source.integer(0, 1):
        arguments = arguments | {"return_indices": True}
    assert_same(name, source, image(source, rank, least=3), [], arguments, exact="max" in name)


@given(st.data())
@properties(40)
def test_batch_norm(data):
    source = draw.Strategy(data)
    x = tensor(source, (source.pick((2, 3)), draw.extent(source, 33), source.integer(2, 19), 3), torch.float64)
    x = x + torch.randn(x.shape, dtype=torch.float64) if source.integer(0, 1) else x * 1.0
    weight, bias = torch.randn(2, x.shape[1], dtype=torch.float64)
    running = torch.randn(x.shape[1]).double(), torch.rand(x.shape[1]).double() + 0.5
    training = bool(source.integer(0, 1))

    for functions in (PF, F):
        functions_running = [r.clone() for r in running]
        y = functions.batch_norm(x, *functions_running, weight, bias, training)
        if functions is PF:
            ours, our_running = y, functions_running
    torch.testing.assert_close(ours, y, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(our_running, functions_running, rtol=1e-9, atol=1e-9)
    arguments = {"running_mean": None, "running_var": None, "training": True}

    def call(function):
        return lambda x, weight, bias: function(x, **arguments, weight=weight, bias=bias)

    grad = tensor(source, tuple(x.shape), x.dtype)
    with pycv.use(backend="cpu"):
        computed = outputs(call(PF.batch_norm), x, [weight, bias], grad, {})
    torch.testing.assert_close(computed, outputs(call(F.batch_norm), x, [weight, bias], grad, {}), rtol=1e-8, atol=1e-8)


@given(st.data())
@properties(30)
def test_local_response_norm(data):
    source = draw.Strategy(data)
    x = tensor(source, (source.pick((1, 2)), draw.extent(source, 33), source.integer(1, 9), 3), torch.float32)
    arguments = {"size": source.integer(1, 6), "alpha": 0.5, "k": 2.0}
    assert_same("local_response_norm", source, x, [], arguments, exact=False, tolerance=1e-5)


@given(st.data())
@properties(60)
def test_matmul(data):
    """Vectors, matrices and broadcast batches of them."""
    source = draw.Strategy(data)
    m, k, n = (source.pick((1, 2, 7, 17, 33)) for _ in range(3))
    left, right = source.pick(
        (
            ((m, k), (k, n)),
            ((k,), (k, n)),
            ((m, k), (k,)),
            ((3, m, k), (k, n)),
            ((2, 1, m, k), (3, k, n)),
            ((m, k), (3, k, n)),
        )
    )
    dtype = source.pick((torch.float32, torch.float64))
    a, b = (matrices(source, shape, dtype) for shape in (left, right))
    assert_same("matmul", source, a, [b], {}, exact=True)


@given(st.data())
@properties(60)
def test_linear(data):
    source = draw.Strategy(data)
    k, n = (source.pick((1, 2, 7, 17, 33)) for _ in range(2))
    shape = (*(source.integer(1, 4) for _ in range(source.integer(0, 2))), k)
    dtype = source.pick((torch.float32, torch.float64))
    others = [matrices(source, (n, k), dtype)]
    if source.integer(0, 1):
        others.append(torch.randint(-3, 4, (n,)).to(dtype))
    assert_same("linear", source, matrices(source, shape, dtype), others, {}, exact=True)


def matrices(source, shape, dtype):
    """Integers in the kinds of memory that matrices come in."""
    kind = source.pick(("dense", "transposed", "slice", "steps", "expanded"))
    if len(shape) < 2:
        return torch.randint(-3, 4, (2 * shape[0],)).to(dtype)[:: 2 if kind == "steps" else 1][: shape[0]]
    if kind == "transposed":
        return torch.randint(-3, 4, (*shape[:-2], shape[-1], shape[-2])).to(dtype).mT
    if kind == "slice":
        return torch.randint(-3, 4, (*shape[:-1], shape[-1] + 3)).to(dtype)[..., 1 : 1 + shape[-1]]
    if kind == "steps":
        return torch.randint(-3, 4, (*shape[:-1], 2 * shape[-1])).to(dtype)[..., ::2]
    if kind == "expanded":
        return torch.randint(-3, 4, (*[1] * (len(shape) - 1), shape[-1])).to(dtype).expand(shape)
    return torch.randint(-3, 4, shape).to(dtype)
