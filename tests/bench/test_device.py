"""Times by CUDA events, on a device and a clock that the test controls."""

from contextlib import contextmanager

import pytest
import torch

from pycv import timing
from pycv.bench import device
from tests.bench.streams import Streams

LAUNCH = 5e-6  # of the host, between two kernels of a call


class World(Streams):
    """A device whose clock calls move forward, and whose graphs leave the host's time out."""

    def __init__(self, monkeypatch):
        super().__init__(monkeypatch)
        self.now, self.order, self.flushes, self.capturing = 0.0, [], 0, None
        world = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = world.now

            def synchronize(self): ...

            def elapsed_time(self, end):
                return 1e3 * (end.at - self.at)

        class Graph:
            def __init__(self):
                self.kernels, self.failed = [], False

            def replay(self):
                for name, seconds in self.kernels:
                    world.order.append(f"graph of {name}")
                    world.now += seconds

        class Buffer:
            def zero_(self):
                world.flushes += 1
                world.now += 1e-4

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

        fakes = {"Event": Event, "CUDAGraph": Graph, "graph": capture, "synchronize": lambda: None}
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(device, "_buffer", Buffer)

    def call(self, name, seconds, capturable=True):
        def run():
            if self.capturing is not None:
                if not capturable:
                    self.capturing.failed = True
                    raise RuntimeError("operation not permitted when stream is capturing")
                self.capturing.kernels.append((name, seconds))
                return
            self.order.append(name)
            self.now += seconds + LAUNCH

        return run

    def gradient(self, name, seconds):
        """A call that runs on the stream that is current now, that of its forward pass, whichever is later."""
        home, there, elsewhere = self.stream, self.call(name, seconds), self.call(name, seconds, capturable=False)
        return lambda: there() if self.stream is home else elsewhere()


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_short_calls_are_replayed_as_graphs(world):
    timings = device.measure({"short": world.call("short", 2e-5), "long": world.call("long", 1e-3)}, budget=100)
    assert timings["short"].seconds == pytest.approx(2e-5)
    assert timings["long"].seconds == pytest.approx(1e-3 + LAUNCH)
    assert timings["short"].samples == timings["long"].samples == timing.MIN_SAMPLES
    assert "graph of long" not in world.order


def test_what_cannot_be_captured_is_called(world):
    timings = device.measure({"a": world.call("a", 2e-5, capturable=False)}, budget=100)
    assert timings["a"].seconds == pytest.approx(2e-5 + LAUNCH)


def test_gradients_are_captured(world):
    with device.fair():
        device.measure({"a": world.gradient("a", 2e-5)}, budget=100)
    assert world.order[-1] == "graph of a"


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


def test_samples_are_interleaved(world):
    device.measure({"a": world.call("a", 1e-3), "b": world.call("b", 1e-3)}, budget=100)
    assert "".join(world.order[-18:]) == "abba" * 4 + "ab"


def test_fair_switches_are_given_back(world):
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    with device.fair():
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.benchmark
    after = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    assert after == before
