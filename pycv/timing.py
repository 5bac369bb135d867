"""How long calls take, measured side by side in one process so that whatever disturbs one disturbs all.

Rounds take one sample of every call, in rotating order; a sample is a loop of calls that lasts about a millisecond.
Samples during which the system took a processor away from the process (``ru_nivcsw`` of getrusage) are set aside;
of a sample that one call makes long, only those during which it did so more than once in 100 ms, which happens anywhere
and costs a few percent at most.
Rounds end when the 95 % confidence interval of every median is within the wanted precision, or the budget is spent.

All kernels of pycv and torch share one pool of threads. A call into a library with threads of its own, which spin for a
while after their work (OpenBLAS: 50 ms), would share its processors with the calls before and after it: its samples are
taken within a context of its own, ``call.alone()``, which waits for the others' threads and then for its own
(:func:`rest`).
"""

from __future__ import annotations

import gc
import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import repeat
from statistics import median, quantiles

SAMPLE_SECONDS = 1e-3
WARMUP_SECONDS = 0.02
MIN_SAMPLES = 9  # the fewest whose second and second-last values enclose the median with 95 % confidence
FEW_SAMPLES = 3  # undisturbed samples that are better than many disturbed ones
MAX_SAMPLES = 2000
SECONDS_PER_SWITCH = 0.1  # of a sample, for each time that it may lose a processor
REST_SECONDS = 0.012  # over which threads are watched: longer than the ticks in which their time is counted
LONGEST_REST = 0.5
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the median, its 95 % confidence interval ``low``..``high``, and the quartiles of the samples.

    ``disturbed`` samples were set aside. ``noisy``: fewer than 9 undisturbed ones were left (all are used where fewer
    than 3 were), or the interval is wider than the precision that was asked for.
    """

    seconds: float
    low: float
    high: float
    q25: float
    q75: float
    samples: int
    disturbed: int
    noisy: bool


def measure(
    calls: Mapping[str, Callable[[], object]], budget: float, precision: float = 0.02, warm_up: float = WARMUP_SECONDS,
    sampler: type[Sampler] | None = None,
) -> dict[str, Timing]:  # fmt: skip
    """Times every call. ``budget`` in seconds for all of them together; at least three rounds are run.

    ``precision``: half the width of the confidence interval of a median, as a share of it, at which to stop.
    ``warm_up``: seconds that each call is run before its time counts. ``sampler``: what takes the samples of a call,
    else a :class:`Sampler`.
    """
    samplers = [(sampler or Sampler)(name, call) for name, call in calls.items()]
    deadline = time.perf_counter() + budget
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for each in samplers:
            each.warm_up(warm_up)
        rounds = 0
        while samplers and rounds < MAX_SAMPLES:
            for i in range(len(samplers)):
                samplers[(rounds + i) % len(samplers)].sample()
            rounds += 1
            if rounds >= FEW_SAMPLES and time.perf_counter() > deadline:
                break
            if rounds >= MIN_SAMPLES and all(each.settled(precision) for each in samplers):
                break
    finally:
        if was_enabled:
            gc.enable()
    return {each.name: each.result(precision) for each in samplers}


class Sampler:
    """One call and its samples; :func:`measure` takes turns among several."""

    def __init__(self, name: str, call: Callable[[], object]) -> None:
        self.name = name
        self.call = call
        self.context: Callable[[], AbstractContextManager[object]] = getattr(call, "alone", nullcontext)
        self.loops = 1
        self.clean: list[float] = []
        self.disturbed: list[float] = []

    def warm_up(self, seconds: float) -> None:
        """Runs the call until caches and clocks are warm, and sets the loop count of a sample."""
        fastest = math.inf
        with self.context():
            self.call()
            deadline = time.perf_counter() + seconds
            while time.perf_counter() < deadline or fastest == math.inf:
                fastest = min(fastest, self.once()[0])
        self.loops = max(1, math.ceil(SAMPLE_SECONDS / max(fastest, 1e-9)))

    def sample(self) -> None:
        """Takes one sample."""
        with self.context():
            if self.loops > 1:  # a sample finds the caches as calls in a row leave them, not as another call did
                self.call()
            seconds, undisturbed = self.once()
        (self.clean if undisturbed else self.disturbed).append(seconds)

    def once(self) -> tuple[float, bool]:
        """Seconds per call, and whether nothing disturbed them: the process kept its processors meanwhile, or nearly
        so."""
        call = self.call
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        start = time.perf_counter()
        for _ in repeat(None, self.loops):
            call()
        seconds = time.perf_counter() - start
        lost = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches
        return seconds / self.loops, lost <= int(seconds / SECONDS_PER_SWITCH)

    def settled(self, precision: float) -> bool:
        """Whether the median is known well enough."""
        if len(self.clean) < MIN_SAMPLES:
            return False
        middle, low, high = _interval(sorted(self.clean))
        return high - low <= 2 * precision * middle

    def result(self, precision: float) -> Timing:
        """What the samples say so far."""
        return summarized(self.clean, precision, self.disturbed)


def rest() -> None:
    """Waits until the other threads of the process no longer take a processor, or LONGEST_REST seconds."""
    deadline = time.perf_counter() + LONGEST_REST
    while time.perf_counter() < deadline:
        used = time.process_time()
        time.sleep(REST_SECONDS)
        if time.process_time() - used < REST_SECONDS / 2:
            return


def summarized(clean: list[float], precision: float, disturbed: Sequence[float] = ()) -> Timing:
    """The timing of samples in seconds; ``disturbed`` ones count only where there are too few others."""
    values = sorted(clean if len(clean) >= FEW_SAMPLES else [*clean, *disturbed])
    middle, low, high = _interval(values)
    q25, _, q75 = quantiles(values, n=4, method="inclusive")
    noisy = len(clean) < MIN_SAMPLES or high - low > 2 * precision * middle
    return Timing(middle, low, high, q25, q75, len(values), len(disturbed), noisy)


def _interval(values: list[float]) -> tuple[float, float, float]:
    """The median of sorted values and its 95 % confidence interval, by order statistics: no distribution assumed."""
    count = len(values)
    reach = 0.98 * math.sqrt(count)  # 1.96 standard deviations of the binomial rank of the median
    low = max(0, math.floor(count / 2 - reach))
    high = min(count - 1, math.ceil(count / 2 + reach) - 1)
    return median(values), values[low], values[high]
