"""The sampler, on a clock and a disturbance that the test controls: nothing here depends on how fast the machine is."""

from contextlib import contextmanager
from math import comb
from types import SimpleNamespace

import pytest

from pycv import timing


class World:
    """A clock that calls move forward, and a count of involuntary context switches."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.switches = 0
        self.order = []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        usage = lambda who: SimpleNamespace(ru_nivcsw=self.switches)  # noqa: E731
        monkeypatch.setattr(timing.resource, "getrusage", usage)

    def call(self, name, seconds, disturbed=lambda count: False):
        def run():
            self.order.append(name)
            count = self.order.count(name)
            self.now += seconds(count) if callable(seconds) else seconds
            if disturbed(count):
                self.now += 1.0
                self.switches += 11

        return run


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_steady_calls_settle_after_the_fewest_samples(world):
    result = timing.measure({"a": world.call("a", 0.002), "b": world.call("b", 0.004)}, budget=100)
    assert result["a"].seconds == pytest.approx(0.002)
    assert result["b"].seconds == pytest.approx(0.004)
    assert result["a"].samples == result["b"].samples == timing.MIN_SAMPLES
    assert not result["a"].noisy


def test_samples_are_interleaved_and_take_turns_in_going_first(world):
    timing.measure({"a": world.call("a", 0.02), "b": world.call("b", 0.02)}, budget=100)
    assert "".join(world.order[-18:]) == "abba" * 4 + "ab"


def test_short_calls_are_looped(world):
    result = timing.measure({"a": world.call("a", 1e-5)}, budget=100)
    warm_up = 1 + round(timing.WARMUP_SECONDS / 1e-5)
    loops = round(timing.SAMPLE_SECONDS / 1e-5)
    assert abs(len(world.order) - warm_up - loops * timing.MIN_SAMPLES) <= loops
    assert result["a"].seconds == pytest.approx(1e-5)


def test_a_sample_of_many_calls_begins_in_its_own_caches(world):
    cold = lambda name: lambda count: 1e-3 if world.order[-2:-1] != [name] else 1e-5  # noqa: E731
    result = timing.measure({name: world.call(name, cold(name)) for name in "ab"}, budget=0.2)
    assert result["a"].q75 == pytest.approx(1e-5) and result["b"].q75 == pytest.approx(1e-5)


def test_a_call_with_threads_of_its_own_has_the_processors_to_itself(world):
    call = world.call("a", 0.02)

    @contextmanager
    def alone():
        world.order.append("rest")
        yield
        world.order.append("rest")

    call.alone = alone
    timing.measure({"a": call, "b": world.call("b", 0.02)}, budget=100)
    assert world.order.count("b") > timing.MIN_SAMPLES
    neighbours = zip(world.order, world.order[1:], strict=False)
    assert not {("a", "b"), ("b", "a")} & set(neighbours)


def test_rest_ends_when_the_threads_of_the_process_do(world, monkeypatch):
    used = iter([0.0, 0.024, 0.024, 0.036, 0.036, 0.037])  # of the processors: two, one and a twelfth
    slept = []
    monkeypatch.setattr(timing.time, "process_time", lambda: next(used))
    monkeypatch.setattr(timing.time, "sleep", slept.append)
    timing.rest()
    assert slept == [timing.REST_SECONDS] * 3


def test_rest_does_not_wait_for_ever(world, monkeypatch):
    def sleep(seconds):
        world.now += seconds

    monkeypatch.setattr(timing.time, "process_time", lambda: 2 * world.now)
    monkeypatch.setattr(timing.time, "sleep", sleep)
    timing.rest()
    assert timing.LONGEST_REST <= world.now < timing.LONGEST_REST + 2 * timing.REST_SECONDS


def test_disturbed_samples_are_set_aside(world):
    a = world.call("a", 0.02, disturbed=lambda count: count % 2 == 0)
    result = timing.measure({"a": a}, budget=1000)["a"]
    assert result.seconds == pytest.approx(0.02) and result.q75 == pytest.approx(0.02)
    assert result.samples == timing.MIN_SAMPLES
    assert result.disturbed >= timing.MIN_SAMPLES - 1
    assert not result.noisy


@pytest.mark.parametrize(("seconds", "switches", "allowed"), [(0.09, 1, False), (0.95, 9, True), (0.95, 10, False)])
def test_a_long_call_may_lose_a_processor_now_and_then(world, seconds, switches, allowed):
    def switch(count):
        world.switches += switches
        return False

    result = timing.measure({"a": world.call("a", seconds, disturbed=switch)}, budget=10)["a"]
    assert result.disturbed == (0 if allowed else result.samples) and result.noisy != allowed


def test_disturbed_samples_count_where_there_is_nothing_else(world):
    result = timing.measure({"a": world.call("a", 0.02, disturbed=lambda count: True)}, budget=10)["a"]
    assert result.seconds == pytest.approx(1.02)
    assert result.noisy
    assert result.disturbed == result.samples


def test_the_budget_ends_what_does_not_settle(world):
    unsteady = world.call("a", lambda count: 0.01 * (1 + count % 5))
    start = world.now
    result = timing.measure({"a": unsteady}, budget=2.0, precision=0.001)["a"]
    assert 2.0 <= world.now - start < 2.2
    assert result.noisy
    assert result.low < result.seconds < result.high
    assert result.q25 < result.seconds < result.q75


def test_three_samples_are_taken_whatever_the_budget(world):
    assert timing.measure({"a": world.call("a", 5.0)}, budget=0)["a"].samples == 3


@pytest.mark.parametrize("count", [9, 10, 20, 51, 200])
def test_the_interval_covers_the_median_as_often_as_it_says(count):
    _, low, high = timing._interval(list(range(count)))
    covered = sum(comb(count, k) for k in range(low + 1, high + 1)) / 2**count
    assert timing.CONFIDENCE - 0.015 < covered < 0.985


def test_an_error_of_a_contender_comes_through():
    def broken():
        raise RuntimeError("broken kernel")

    with pytest.raises(RuntimeError, match="broken kernel"):
        timing.measure({"a": broken}, budget=1)
