"""Many gradients of one result at once: torch's older vmap (``is_grads_batched``) and the newer one, for every op."""

from __future__ import annotations

import pytest
import torch

import pycv
from pycv import functional as PF

from ..backend import BACKEND


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


MEAN, VARIANCE = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
IMAGE = (2, 3, 4, 5)

OPS = {
    "conv": (lambda *x: PF.conv2d(*x, padding=1), [IMAGE, (4, 3, 3, 3), (4,)]),
    "conv with relu": (lambda x, w, r: PF.conv2d(x, w, residual=r, activation="relu"), [IMAGE, (3, 3, 1, 1), IMAGE]),
    "conv_transpose": (lambda *x: PF.conv_transpose2d(*x, stride=2), [IMAGE, (3, 2, 3, 3), (2,)]),
    "linear": (PF.linear, [(2, 3, 4), (5, 4), (5,)]),
    "linear with relu": (lambda *x: PF.linear(*x, activation="relu"), [(3, 4), (5, 4), (5,)]),
    "bmm": (PF.bmm, [(2, 3, 4), (2, 4, 5)]),
    "addmm": (lambda *x: PF.addmm(*x, beta=0.5, alpha=2), [(3, 1), (3, 4), (4, 5)]),
    "relu": (PF.relu, [(3, 4)]),
    "max_pool": (lambda x: PF.max_pool2d(x, 2), [IMAGE]),
    "adaptive_max_pool": (lambda x: PF.adaptive_max_pool2d(x, 2), [IMAGE]),
    "avg_pool": (lambda x: PF.avg_pool2d(x, 2), [IMAGE]),
    "adaptive_avg_pool": (lambda x: PF.adaptive_avg_pool2d(x, 2), [IMAGE]),
    "local_response_norm": (lambda x: PF.local_response_norm(x, 3, 0.1), [IMAGE]),
    "batch_norm": (lambda x, w, b: PF.batch_norm(x, None, None, w, b, training=True), [IMAGE, (3,), (3,)]),
    "batch_norm without weight": (lambda x: PF.batch_norm(x, None, None, training=True), [IMAGE]),
    "batch_norm in eval": (lambda *x: PF.batch_norm(x[0], MEAN, VARIANCE, *x[1:]), [IMAGE, (3,), (3,)]),
    "batch_norm with relu": (
        lambda x, w, r: PF.batch_norm(x, MEAN.clone(), VARIANCE.clone(), w, training=True, residual=r,
                                      activation="relu"),
        [IMAGE, (3,), IMAGE],
    ),
}  # fmt: skip


def one_by_one(y, leaves, vectors, create_graph):
    rows = [torch.autograd.grad(y, leaves, v, retain_graph=True, create_graph=create_graph) for v in vectors]
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def by_older_vmap(y, leaves, vectors, create_graph):
    return torch.autograd.grad(y, leaves, vectors, retain_graph=True, create_graph=create_graph, is_grads_batched=True)


def by_vmap(y, leaves, vectors, create_graph):
    return torch.vmap(lambda v: torch.autograd.grad(y, leaves, v, retain_graph=True, create_graph=create_graph))(
        vectors
    )


WAYS = pytest.mark.parametrize("batched", [by_older_vmap, by_vmap])
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


@WAYS
@pytest.mark.parametrize("name", OPS)
def test_batched_gradients(name, batched):
    """As one by one, and so are their gradients, in the vectors too."""
    function, shapes = OPS[name]
    leaves = [randn(*shape).requires_grad_() for shape in shapes]
    with pycv.use(backend=BACKEND):
        y = function(*leaves)
        vectors = randn(2, *y.shape).requires_grad_()
        results = []
        for gradients in (one_by_one, batched):
            first = gradients(y, leaves, vectors, True)
            total = sum(g.pow(2).sum() for g in first)
            second = torch.autograd.grad(total, (*leaves, vectors), retain_graph=True, allow_unused=True)
            plain = gradients(y, leaves, vectors, False)
            assert not any(g is not None and g.requires_grad for g in (*second, *plain))
            results.append([*first, *plain, *(g for g in second if g is not None)])
    torch.testing.assert_close(results[1], results[0])


@WAYS
@pytest.mark.parametrize("name", OPS)
def test_batched_gradients_of_gradients(name, batched):
    function, shapes = OPS[name]
    leaves = [randn(*shape).requires_grad_() for shape in shapes]
    with pycv.use(backend=BACKEND):
        y = function(*leaves)
        vector = randn(*y.shape).requires_grad_()
        first = torch.autograd.grad(y, leaves[0], vector, create_graph=True)[0]
        vectors = randn(2, *first.shape)
        results = [gradients(first, [vector], vectors, False)[0] for gradients in (one_by_one, batched)]
    torch.testing.assert_close(results[1], results[0])
