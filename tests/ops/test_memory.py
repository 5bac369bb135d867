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
from ..backend import BACKEND
from ..seed import properties
from .test_properties import MEMORY, tensor

pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")

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
    """Against torch in float64: equal, or within ``tolerance`` of the largest element.

    Torch gets dense copies: some of its gradients refuse an unbatched channels_last input.
    """
    ours, theirs = getattr(PF, name), getattr(F, name, None) or getattr(torch, name)
    dense = [t.double().contiguous() for t in (x, *others)]
    y = theirs(*dense, **arguments)
    shape = tuple((y[0] if isinstance(y, tuple) else y).shape)
    grad = tensor(source, shape, x.dtype) if len(shape) > 2 else matrices(source, shape or (1,), x.dtype).reshape(shape)
    with pycv.use(backend=BACKEND):
        computed = outputs(ours, x, others, grad, arguments)
    expected = outputs(theirs, dense[0], dense[1:], grad.double().contiguous(), arguments)
    for got, want in zip(computed, expected, strict=True):
        assert got.dtype == (x.dtype if want.is_floating_point() else want.dtype)
        slack = 0.0 if exact or not want.numel() else tolerance * float(want.detach().abs().max())
        torch.testing.assert_close(got.to(want.dtype), want, rtol=0, atol=slack)


def image(source, rank, memory):
    """(N, C, spatial...) in one kind of memory, at times without the batch axis."""
    n, c = source.pick((1, 2, 3)), draw.extent(source, 33)
    size = tuple(source.integer(3, 19 if axis == 0 else 6) for axis in range(rank))
    x = tensor(source, (n, c, *size), source.pick((torch.float32, torch.float64)), memory)
    return x if source.integer(0, 4) else x[0]


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("memory", MEMORY)
@given(st.data())
@properties(4)
def test_pooling(name, memory, data):
    rank, arguments = POOLS[name]
    source = draw.Strategy(data)
    if "max" in name and source.integer(0, 1):
        arguments = arguments | {"return_indices": True}
    assert_same(name, source, image(source, rank, memory), [], arguments, exact="max" in name)


@pytest.mark.parametrize("memory", MEMORY)
@given(st.data())
@properties(8)
def test_batch_norm(memory, data):
    source = draw.Strategy(data)
    shape = (source.pick((2, 3)), draw.extent(source, 33), source.integer(2, 19), 3)
    x = tensor(source, shape, torch.float64, memory)
    weight, bias, mean, var = (tensor(source, (shape[1],), x.dtype) for _ in range(4))
    grad_output = tensor(source, shape, x.dtype)
    results = []
    with pycv.use(backend=BACKEND):
        training, tracked = bool(source.integer(0, 1)), bool(source.integer(0, 1))
        for functions in (PF, F):
            running = (mean.clone(), var.abs() + 0.5) if tracked or not training else (None, None)

            def call(x, weight, bias, functions=functions, running=running):
                return functions.batch_norm(x, *running, weight, bias, training)

            computed = outputs(call, x, [weight, bias], grad_output, {})
            results.append([*computed, *(r for r in running if r is not None)])
    torch.testing.assert_close(results[0], results[1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("memory", MEMORY)
@given(st.data())
@properties(6)
def test_local_response_norm(memory, data):
    source = draw.Strategy(data)
    x = tensor(source, (source.pick((1, 2)), draw.extent(source, 33), source.integer(1, 9), 3), torch.float32, memory)
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
        others.append(matrices(source, (n,), dtype))
    assert_same("linear", source, matrices(source, shape, dtype), others, {}, exact=True)


def matrices(source, shape, dtype):
    """Small integers in the kinds of memory that matrices come in."""
    kind = source.pick(("dense", "transposed", "slice", "steps", "expanded"))
    generator = torch.Generator().manual_seed(source.integer(0, 10**6))

    def values(*shape):
        return torch.randint(-3, 4, shape, generator=generator).to(dtype)

    *batch, columns = shape
    if kind == "steps":
        return values(*batch, 2 * columns)[..., ::2]
    if kind == "slice":
        return values(*batch, columns + 3)[..., 1 : 1 + columns]
    if kind == "transposed" and batch:
        return values(*batch[:-1], columns, batch[-1]).mT
    if kind == "expanded" and batch:
        return values(*[1] * len(batch), columns).expand(shape)
    return values(*shape)
