"""Times by CUDA events, on a device and a clock that the test controls."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from pycv import timing, timing_device
from pycv.bench import device
from pycv.nn import prepared
from tests.bench.streams import Streams

LAUNCH = 5e-6  # of the host, per kernel
REPLAY = 1e-6  # of the host, per graph


class World(Streams):
    """A host and a device, each with a clock of its own: the host queues, and the device runs what is queued, later."""

    def __init__(self, monkeypatch):
        super().__init__(monkeypatch)
        self.host = self.device = 0.0
        self.order, self.flushes, self.capturing = [], 0, None
        world = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = world.device = max(world.device, world.host)

            def synchronize(self):
                world.host = max(world.host, self.at)

            def elapsed_time(self, end):
                return 1e3 * (end.at - self.at)

        class Graph:
            def __init__(self):
                self.kernels, self.failed = [], False

            def replay(self):
                world.host += REPLAY
                for name, seconds in self.kernels:
                    world.order.append(f"graph of {name}")
                    world.run(seconds)

        class Buffer:
            def zero_(self):
                world.flushes += 1
                world.run(1e-4)

        @contextmanager
        def capture(graph, stream):
            """As torch's: where ending the capture fails, its stream remains the current one."""
            before, world.capturing, world.stream = world.stream, graph, stream
            try:
                yield
            finally:
                world.capturing = None
                if graph.failed:
                    raise RuntimeError("operation failed due to a previous error during capture")
                world.stream = before

        def synchronize():
            world.host = max(world.host, world.device)

        fakes = {"Event": Event, "CUDAGraph": Graph, "graph": capture, "synchronize": synchronize}
        fakes["_sleep"] = lambda cycles: self.run(cycles / timing_device.CLOCK)
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(device, "flush_buffer", Buffer)
        monkeypatch.setattr(timing_device, "flush_buffer", Buffer)
        for module in (device, timing, timing_device):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.host))

    def run(self, seconds):
        """On the device, once it has done what was queued before."""
        self.device = max(self.device, self.host) + seconds

    def call(self, name, seconds, capturable=True, kernels=1):
        """Of several kernels, which take ``seconds`` together."""

        def run():
            if self.capturing is not None:
                if not capturable:
                    self.capturing.failed = True
                    raise RuntimeError("operation not permitted when stream is capturing")
                self.capturing.kernels.append((name, seconds))
                return
            self.order.append(name)
            for _ in range(kernels):
                self.host += LAUNCH
                self.run(seconds / kernels)

        return run

    def gradient(self, name, seconds):
        """A call that runs on the stream that is current now, that of its forward pass, whichever is later."""
        home, there, elsewhere = self.stream, self.call(name, seconds), self.call(name, seconds, capturable=False)
        return lambda: there() if self.stream is home else elsewhere()


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_short_calls_are_replayed_as_graphs(world):
    timings, _ = device.measure({"short": world.call("short", 2e-5), "long": world.call("long", 1e-3)}, budget=100)
    assert timings["short"].seconds == pytest.approx(2e-5)
    assert timings["long"].seconds == pytest.approx(1e-3)
    assert timings["short"].samples == timings["long"].samples == timing.MIN_SAMPLES
    assert "graph of long" not in world.order


def test_what_cannot_be_captured_is_called(world):
    timings, _ = device.measure({"a": world.call("a", 2e-5, capturable=False)}, budget=100)
    assert timings["a"].seconds == pytest.approx(2e-5)
    assert set(world.order) == {"a"}


@pytest.mark.parametrize("flush", [True, False])
def test_the_host_is_no_part_of_a_time_nor_of_the_decision_to_capture(world, flush):
    calls = {
        "busy host": world.call("busy host", 2e-5, kernels=100),  # 500 µs of it
        "uncaptured": world.call("uncaptured", 2e-5, kernels=100, capturable=False),
        "busy device": world.call("busy device", 1.1e-4),
    }
    timings, _ = device.measure(calls, budget=100, flush=flush)
    assert [timing.seconds for timing in timings.values()] == pytest.approx([2e-5, 2e-5, 1.1e-4])
    assert set(world.order[-3:]) == {"graph of busy host", "uncaptured", "busy device"}


def test_the_device_does_not_wait_for_long(world):
    timings, _ = device.measure({"a": world.call("a", 1e-3, kernels=4000)}, budget=100, flush=False)
    assert timings["a"].seconds == pytest.approx(4000 * LAUNCH - timing_device.MOST_WAITING, rel=1e-3)


def test_gradients_are_captured(world):
    with device.fair():
        device.measure({"a": world.gradient("a", 2e-5)}, budget=100)
    assert world.order[-1] == "graph of a"


def test_what_is_captured_uses_the_prepared_weights_that_are_kept(world, monkeypatch):
    monkeypatch.setattr(prepared, "_is_capturing", lambda: world.capturing is not None)
    store, weight, choice, used = prepared.PreparedWeights(), SimpleNamespace(is_cuda=True), object(), []
    store._entries = {id(choice): SimpleNamespace(valid=lambda weight: True, buffer="kept")}
    run = world.call("a", 2e-5)

    def call():
        used.append((world.capturing is not None, store.get(weight, choice)))
        run()

    device.measure({"a": call}, budget=100)
    assert set(used) == {(False, "kept"), (True, "kept")}
    with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=None):  # of a user
        assert store.get(weight, choice) is None


def test_an_end_of_time_comes_after_three_rounds(world):
    timings, reasons = device.measure({"a": world.call("a", 0.05), "b": world.call("b", 0.06)}, budget=0.1)
    assert timings["a"].samples == timings["b"].samples == timing.FEW_SAMPLES and not reasons
    assert timings["a"].seconds == pytest.approx(0.05) and timings["a"].noisy


def test_what_would_take_too_long_is_left_out_and_said(world):
    calls = {"a": world.call("a", 1e-3), "slow": world.call("slow", 0.2), "b": world.call("b", 1e-3)}
    timings, reasons = device.measure(calls, budget=2.0)
    assert list(timings) == ["a", "b"] and timings["b"].samples == timing.MIN_SAMPLES
    assert reasons == {"slow": "no time: a call takes 0.2 s, and 1.6 s are left"}
    assert world.order.count("slow") == 2
    timings, reasons = device.measure(calls, budget=2.0, patience=10.0)
    assert list(timings) == list(calls) and not reasons


def test_everything_runs_on_one_stream_after_what_came_before(world):
    outer = world.stream
    with device.fair():
        inner = world.stream
        assert inner is not outer and inner.awaited == [outer]
        assert device.captured(world.call("a", 1e-5, capturable=False)) is None and world.stream is inner
        assert device.captured(world.call("a", 1e-5)) is not None and world.stream is inner
    assert world.stream is outer and outer.awaited == [inner]
    with device.fair():
        assert world.stream is inner
    assert device.captured(world.call("a", 1e-5, capturable=False)) is None and world.stream is outer


def test_every_sample_is_cold_and_the_flush_is_no_part_of_it(world):
    device.measure({"a": world.call("a", 1e-3)}, budget=100)
    assert world.flushes >= timing.MIN_SAMPLES
    flushes = world.flushes
    device.measure({"a": world.call("a", 1e-3)}, budget=100, flush=False)
    assert world.flushes == flushes


def test_what_autotune_measures_holds_no_time_of_the_host(world):
    calls = {"busy host": world.call("busy host", 2e-5, kernels=100), "a": world.call("a", 1e-3)}
    timings = timing.measure(calls, 100, sampler=timing_device.Sampler)
    assert [found.seconds for found in timings.values()] == pytest.approx([2e-5, 1e-3])
    assert world.flushes >= 2 * timing.MIN_SAMPLES and "graph of a" not in world.order


def test_samples_are_interleaved(world):
    device.measure({"a": world.call("a", 1e-3), "b": world.call("b", 1e-3)}, budget=100)
    assert "".join(world.order[-18:]) == "abba" * 4 + "ab"


def test_fair_switches_are_given_back(world):
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    with device.fair():
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.benchmark
    with device.fair(tf32=True):
        assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32
    after = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    assert after == before
