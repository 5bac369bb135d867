"""What only tensors of a GPU meet: prepared weights that stay there, streams, and capture in a graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import pycv
from pycv import functional as PF
from pycv import registry
from pycv.nn import prepared

from ..backend import DEVICE, STANDIN

pytestmark = pytest.mark.skipif(DEVICE == "cpu", reason="about tensors of a GPU: PYCV_TEST_DEVICE=cuda or standin")

ALGORITHMS = ("direct", "implicit_gemm", "im2col", "winograd/f4", "winograd/f2", "fft")


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


def convolution(algorithm: str) -> tuple[Callable, list[tuple[int, ...]]]:
    thin = algorithm == "direct"
    return lambda x, w: PF.conv2d(x, w, padding=1), [(2, 3 if thin else 20, 9, 10), (5, 3 if thin else 20, 3, 3)]


CAPTURED = {
    **{algorithm: convolution(algorithm) for algorithm in ALGORITHMS},
    "simt_8_warp_tiled": (lambda a, b: PF.mm(a, b), [(40, 700), (700, 33)]),
    "max_pool": (lambda x: PF.max_pool2d(x, 3, 2, 1), [(2, 8, 11, 12)]),
    "avg_pool": (lambda x: PF.avg_pool2d(x, 3, 2, 1), [(2, 8, 11, 12)]),
    "relu": (PF.relu, [(1000,)]),
    "batch_norm": (lambda x, w: PF.batch_norm(x, None, None, w, training=True), [(4, 16, 9, 8), (16,)]),
    "local_response_norm": (lambda x: PF.local_response_norm(x, 5), [(2, 9, 6, 7)]),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_capture_in_a_graph(name):
    """Nothing on the way to a launch allocates outside the graph's pool or waits for the device."""
    function, shapes = CAPTURED[name]
    inputs, others = ([torch.randn(shape) for shape in shapes] for _ in range(2))
    algorithm = name if name in ALGORITHMS or name.startswith("simt") else None
    with pycv.use(backend="cuda", algorithm=algorithm):
        expected = with_gradients(function)(*others)
        with registry.record() as calls:
            results = replayed(with_gradients(function), inputs, others)
    assert calls and all(call.choice.kernel.backend == "cuda" for call in calls)
    for got, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


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
    with pycv.use(backend="cuda"):
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
    with pycv.use(backend="cuda"):
        y = PF.conv2d(x, w)
    assert y.device == x.device and torch.cuda.current_device() == 0
    torch.testing.assert_close(y.cpu(), torch.nn.functional.conv2d(x.cpu(), w.cpu()), rtol=1e-4, atol=1e-5)
