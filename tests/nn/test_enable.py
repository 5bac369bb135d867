"""pycv.enable(): functional calls of torch on pycv's kernels, in this block and thread only."""

import threading

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import pycv
from pycv import registry
from pycv.nn.enable import HANDLERS


def _rand(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


A, B, V = _rand(4, 5), _rand(5, 6), _rand(5)
X1, X2, X3 = _rand(2, 4, 9), _rand(2, 4, 8, 9), _rand(2, 4, 5, 6, 7)
XS = {1: X1, 2: X2, 3: X3}

CALLS = {
    "F.relu": lambda: F.relu(X2),
    "F.relu inplace": lambda: F.relu(X2.clone(), inplace=True),
    "F.relu_": lambda: F.relu_(X2.clone()),
    "torch.relu": lambda: torch.relu(X2),
    "torch.relu_": lambda: torch.relu_(X2.clone()),
    "Tensor.relu": lambda: X2.relu(),
    "Tensor.relu_": lambda: X2.clone().relu_(),
    "linear": lambda: F.linear(A, B.T, _rand(6)),
    "mm": lambda: torch.mm(A, B),
    "Tensor.mm": lambda: A.mm(B),
    "bmm": lambda: torch.bmm(X1, X1.mT),
    "Tensor.bmm": lambda: X1.bmm(X1.mT),
    "matmul": lambda: torch.matmul(X1, X1.mT),
    "Tensor.matmul": lambda: A.matmul(V),
    "@": lambda: A @ B,
    "addmm": lambda: torch.addmm(_rand(6), A, B, beta=0.5, alpha=2),
    "Tensor.addmm": lambda: _rand(4, 6).addmm(A, B),
    "batch_norm": lambda: F.batch_norm(X2, torch.zeros(4).double(), torch.ones(4).double(), training=True),
    "local_response_norm": lambda: F.local_response_norm(X2, 3),
    "max_pool2d positional": lambda: F.max_pool2d(X2, 3, 2, 1, 1, True),
    "module conv": lambda: nn.Conv2d(4, 3, 3, dtype=torch.float64).requires_grad_(False)(X2) * 0,
    "module pool": lambda: nn.MaxPool2d(2, return_indices=True)(X2),
}
for rank, x in XS.items():
    weight, transposed = _rand(6, 2, *[3] * rank), _rand(4, 3, *[3] * rank)
    CALLS |= {
        f"conv{rank}d": lambda r=rank, x=x, w=weight: getattr(F, f"conv{r}d")(x, w, _rand(6), padding="same", groups=2),
        f"torch.conv{rank}d": lambda r=rank, x=x, w=weight: getattr(torch, f"conv{r}d")(x, w, None, 2, 1, 1, 2),
        f"conv_transpose{rank}d": lambda r=rank, x=x, w=transposed: getattr(F, f"conv_transpose{r}d")(x, w, stride=2),
        f"max_pool{rank}d": lambda r=rank, x=x: getattr(F, f"max_pool{r}d")(x, 2),
        f"max_pool{rank}d indices": lambda r=rank, x=x: getattr(F, f"max_pool{r}d")(x, 2, return_indices=True),
        f"max_pool{rank}d_with_indices": lambda r=rank, x=x: getattr(F, f"max_pool{r}d_with_indices")(x, 2),
        f"avg_pool{rank}d": lambda r=rank, x=x: getattr(F, f"avg_pool{r}d")(x, 2, padding=1, count_include_pad=False),
        f"adaptive_avg_pool{rank}d": lambda r=rank, x=x: getattr(F, f"adaptive_avg_pool{r}d")(x, 2),
        f"adaptive_max_pool{rank}d": lambda r=rank, x=x: getattr(F, f"adaptive_max_pool{r}d")(x, 2),
        f"adaptive_max_pool{rank}d indices": lambda r=rank, x=x: getattr(F, f"adaptive_max_pool{r}d")(x, 2, True),
    }


@pytest.mark.parametrize("name", CALLS)
def test_reaches(name):
    expected = CALLS[name]()
    with registry.record() as calls, pycv.enable():
        result = CALLS[name]()
    assert calls and {call.choice.kernel.backend for call in calls} == {"cpu"}
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-11)


def test_every_handler_stands_for_the_function_of_its_name():
    for function, handler in HANDLERS.items():
        name = function.__name__
        if name != "fn":  # what torch's boolean_dispatch calls the functions it makes
            assert handler.function.__name__ == name.removesuffix("_with_indices").rstrip("_")


@pytest.mark.parametrize(
    "call",
    [
        lambda: A.matmul(other=B),
        lambda: torch.mm(A, B, out=torch.empty(4, 6, dtype=torch.float64)),
        lambda: torch.add(A, 1),
        lambda: F.gelu(A),
        lambda: torch.relu(torch.tensor([1, -1])),
        lambda: torch.mm(A.to_sparse(), B),
        lambda: F.conv2d(X2.bfloat16(), _rand(3, 4, 3, 3).bfloat16()),
    ],
)
def test_everything_torch_accepts_is_accepted(call):
    expected = call()
    with pycv.enable():
        torch.testing.assert_close(call(), expected)


def test_ends_with_the_block_even_on_errors():
    with pytest.raises(RuntimeError), pycv.enable():
        F.linear(A, B)
    with registry.record() as calls:
        F.relu(A)
    assert calls == [] and torch._C._len_torch_function_stack() == 0


def test_holds_for_this_thread_only():
    seen = []

    def elsewhere():
        with registry.record() as calls:
            F.relu(A)
        seen.append(len(calls))

    with pycv.enable():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        elsewhere()
    assert seen == [0, 1]


def test_gradients_and_settings():
    x = X2.clone().requires_grad_()
    w = _rand(3, 4, 3, 3).requires_grad_()
    with pycv.enable(), pycv.use(algorithm={"conv2d.forward": "direct"}), registry.record() as calls:
        y = F.relu(F.conv2d(x, w))
    assert [call.choice.kernel.name for call in calls] == ["cpu:direct", "cpu:direct"]
    with registry.record() as calls:
        y.sum().backward()
    assert {call.choice.kernel.backend for call in calls} == {"cpu"}
    grads = x.grad.clone(), w.grad.clone()
    x.grad = w.grad = None
    F.relu(F.conv2d(x, w)).sum().backward()
    torch.testing.assert_close((x.grad, w.grad), grads)


def test_patched_layers_keep_their_path_inside():
    layer = pycv.nn.Conv2d(4, 6, 3, dtype=torch.float64).eval()
    with torch.no_grad(), pycv.enable(), registry.record() as calls:
        result = layer(X2)
        assert torch._C._len_torch_function_stack() == 1
    assert len(calls) == 1 and "_prepared_weights" in layer.__dict__
    with torch.no_grad():
        torch.testing.assert_close(result, F.conv2d(X2, layer.weight, layer.bias))


def test_nests():
    with pycv.enable(), pycv.enable(), registry.record() as calls:
        y = F.relu(A)
    torch.testing.assert_close(y, A.relu())
    assert len(calls) == 1


def test_under_compile_torch_keeps_its_functions():
    def f(x):
        return F.relu(F.conv2d(x, torch.ones(3, 4, 3, 3, dtype=torch.float64)))

    expected = f(X2)
    with pycv.enable():
        result = torch.compile(f, backend="eager")(X2)
    torch.testing.assert_close(result, expected)
