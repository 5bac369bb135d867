"""What only tensors of a GPU meet: prepared weights that stay there, streams, and capture in a graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import pycv
from pycv import functional as PF
from pycv import registry
from pycv.bench.data import DTYPES
from pycv.kernels import Kernel
from pycv.nn import prepared
from pycv.problem import ConvProblem, GemmProblem, Matrix, PointwiseProblem, PoolProblem, Problem

from ..backend import BACKEND, DEVICE, STANDIN, parse
from . import small

pytestmark = pytest.mark.skipif(DEVICE == "cpu", reason="about tensors of a GPU: PYCV_TEST_DEVICE=cuda or standin")


def replayed(function: Callable[..., list[Tensor]], inputs: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    """What ``function(*inputs)`` gives for ``others`` when it is captured once and replayed on their values.

    The stand-in for a GPU has no graphs: there it is called again.
    """
    static = [t.clone() for t in inputs]
    if STANDIN:
        function(*static)
        return function(*others)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # choices and plans are made, allocations known
        for _ in range(2):
            function(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function(*static)
    for target, values in zip(static, others, strict=True):
        target.copy_(values)
    for result in results:
        result.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    return results


def with_gradients(function: Callable[..., Tensor]) -> Callable[..., list[Tensor]]:
    """Result and gradients, for a gradient of ones."""

    def run(*tensors: Tensor) -> list[Tensor]:
        leaves = [t.detach().requires_grad_() for t in tensors]
        y = function(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, torch.ones_like(y))]

    return run


def captured_kernels() -> dict[str, list[Kernel]]:
    """Of every op and algorithm of the backend under test its kernels, one per pass. channel_sum is a part of other
    functions, and torch has no nhwc of rank 1, in which alone wgmma takes a convolution's result."""
    found: dict[str, list[Kernel]] = {}
    for kernel in registry.kernels():
        unreachable = kernel.op == "channel_sum" or (kernel.op, kernel.algorithm) == ("conv1d", "wgmma")
        if kernel.backend == BACKEND and not unreachable:
            found.setdefault(f"{kernel.op} {kernel.full_algorithm}", []).append(kernel)
    return found


CAPTURED = captured_kernels()


def called(problem: Problem) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """The function of a problem, and tensors for it that lie as the problem says."""
    dtype = DTYPES[problem.dtype]
    if isinstance(problem, GemmProblem):
        a, b = torch.randn(problem.m, problem.k), torch.randn(problem.n, problem.k)
        across = problem.b == Matrix("row")
        return (lambda x, y: PF.mm(x, y if across else y.t())), [
            a.to(dtype),
            (b.t().contiguous() if across else b).to(dtype),
        ]
    if isinstance(problem, PointwiseProblem):
        return getattr(PF, problem.op), [torch.randn(problem.count, dtype=dtype)]
    x = laid_out(torch.randn(problem.n, problem.c, *problem.size, dtype=dtype), problem.input.name)
    function = getattr(PF, problem.op)
    if isinstance(problem, ConvProblem):
        weight = laid_out(torch.randn(problem.k, problem.c, *problem.filter, dtype=dtype), problem.weight.name)
        return function, [x, weight, torch.randn(problem.k, dtype=dtype)]
    if isinstance(problem, PoolProblem):
        return partial(function, **size_of(problem)), [x]
    if problem.op == "batch_norm":
        return (lambda x, w: function(x, None, None, w, training=True)), [x, torch.randn(problem.c, dtype=dtype)]
    return (lambda x: function(x, problem.window)), [x]


def size_of(problem: PoolProblem) -> dict[str, tuple[int, ...]]:
    adaptive = problem.op.startswith("adaptive")
    return {"output_size": problem.output_size} if adaptive else {"kernel_size": problem.filter}


def laid_out(x: Tensor, layout: str) -> Tensor:
    return x if layout == "nchw" else x.movedim(1, -1).contiguous().movedim(-1, 1)


@pytest.mark.parametrize("name", CAPTURED)
def test_capture_in_a_graph(name):
    """Nothing on the way to a launch of any kernel allocates outside the graph's pool or waits for the device."""
    kernels = {kernel.pass_: kernel for kernel in CAPTURED[name]}
    problem = parse(small.problem_for(kernels["forward"]))
    if reason := kernels["forward"].supports(problem):
        pytest.skip(reason)  # a kernel of another GPU
    function, inputs = called(problem)
    others = [torch.randn_like(t) for t in inputs]
    with pycv.use(backend=BACKEND, prefer=kernels["forward"].full_algorithm, precision="fast"):
        expected = with_gradients(function)(*others)
        with registry.record() as calls:
            results = replayed(with_gradients(function), inputs, others)
    ran = {(call.choice.problem.pass_, call.choice.kernel.name.partition("[")[0]) for call in calls}
    assert {(pass_, kernel.name) for pass_, kernel in kernels.items()} <= ran
    assert all(call.choice.kernel.backend == BACKEND for call in calls)
    for got, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.skipif(BACKEND != "cuda", reason="the algorithms are those of CUDA C++")
@pytest.mark.parametrize("algorithm", ["direct", "winograd", "fft"])
def test_prepared_weights_stay_on_the_device(algorithm, monkeypatch):
    layer = pycv.nn.Conv2d(3, 8, 3, padding=1, device=DEVICE).eval()
    x = torch.randn(2, 3, 9, 9)

    def right() -> None:
        y = torch.nn.functional.conv2d(x.cpu(), layer.weight.cpu(), layer.bias.cpu(), padding=1)
        torch.testing.assert_close(layer(x).cpu(), y, rtol=1e-4, atol=1e-5)

    def entry():
        (entry,) = layer._prepared_weights._entries.values()
        return entry

    with torch.no_grad(), pycv.use(backend="cuda", algorithm=algorithm):
        right()
        first = entry()
        assert first.buffer.is_cuda
        right()
        assert entry() is first
        layer.weight.mul_(2)
        right()
        second = entry()
        assert second is not first
        monkeypatch.setattr(prepared, "_stream_of", lambda weight: 7)  # another stream than the one that prepared it
        right()
        third = entry()
        assert third is not second
        monkeypatch.setattr(prepared, "_is_capturing", lambda: True)
        assert layer._prepared_weights.get(layer.weight, third.choice) is None
        right()
        assert entry() is third
        layer._drop_prepared_weights()
        right()
        assert layer._prepared_weights.nbytes == 0


@pytest.mark.skipif(STANDIN, reason="the stand-in for a GPU has one stream")
def test_kernels_run_on_the_current_stream():
    """Behind a long wait on a side stream, and in front of what comes after it there."""
    x, w = torch.randn(2, 20, 9, 10), torch.randn(5, 20, 3, 3)
    with pycv.use(backend=BACKEND):
        expected = PF.conv2d(x * 2, w)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(50_000_000)
            x.mul_(2)
            y = PF.conv2d(x, w)
            x.fill_(float("nan"))
        stream.synchronize()
    torch.testing.assert_close(y, expected, rtol=0, atol=0)


@pytest.mark.skipif(STANDIN or torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tensors_of_another_device_than_the_current_one():
    x, w = torch.randn(2, 20, 9, 10, device="cuda:1"), torch.randn(5, 20, 3, 3, device="cuda:1")
    with pycv.use(backend=BACKEND):
        y = PF.conv2d(x, w)
    assert y.device == x.device and torch.cuda.current_device() == 0
    torch.testing.assert_close(y.cpu(), torch.nn.functional.conv2d(x.cpu(), w.cpu()), rtol=1e-4, atol=1e-5)
