"""Tensors with a shape but no memory of their own, which nothing announces, after a plain call of the same shape."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import pycv
from pycv import functional as PF

from ..backend import BACKEND

SHAPE = (2, 3, 4, 5)
CALLS = {
    "conv2d": lambda f, x: f.conv2d(x, WEIGHT, BIAS, padding=1),
    "conv_transpose2d": lambda f, x: f.conv_transpose2d(x, WEIGHT, padding=1),
    "linear": lambda f, x: f.linear(x, SQUARE),
    "relu": lambda f, x: f.relu(x),
    "max_pool2d": lambda f, x: f.max_pool2d(x, 3, 1, 1),
    "adaptive_max_pool2d": lambda f, x: f.adaptive_max_pool2d(x, (4, 5)),
    "avg_pool2d": lambda f, x: f.avg_pool2d(x, 3, 1, 1),
    "adaptive_avg_pool2d": lambda f, x: f.adaptive_avg_pool2d(x, (4, 5)),
    "local_response_norm": lambda f, x: f.local_response_norm(x, 3),
    "batch_norm": lambda f, x: f.batch_norm(x, BIAS, BIAS.abs() + 1, BIAS),
    "batch_norm in training": lambda f, x: f.batch_norm(x, None, None, BIAS, training=True),
}
WEIGHT, SQUARE, BIAS = torch.randn(3, 3, 3, 3), torch.randn(5, 5), torch.randn(3)


@pytest.fixture(params=CALLS)
def call(request):
    """A call that keeps the shape, whose kernels are already known."""
    with pycv.use(backend=BACKEND):
        for grad in (False, True):
            CALLS[request.param](PF, torch.randn(SHAPE, requires_grad=grad))
        yield CALLS[request.param]


def test_what_outlives_its_transform(call):
    kept = []
    torch.func.grad(lambda x: (kept.append(x * 2), x.sum())[1])(torch.randn(SHAPE))
    torch.testing.assert_close(call(PF, kept[0]), call(F, kept[0]))
    with torch.no_grad():
        torch.testing.assert_close(call(PF, kept[0]), call(F, kept[0]))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("create_graph", [False, True])
def test_batches_of_the_older_vmap(call, create_graph):
    """The op runs in backward, on what is_grads_batched sends there."""
    results = []
    vectors = torch.randn(3, *SHAPE)
    for f in (PF, F):
        x = torch.randn(SHAPE).requires_grad_()
        y = x * 2
        y.register_hook(lambda gradient, f=f: call(f, gradient))
        results += torch.autograd.grad(y, x, vectors, create_graph=create_graph, is_grads_batched=True)
    torch.testing.assert_close(*results)
