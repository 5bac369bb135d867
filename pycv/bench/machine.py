"""The machine that a benchmark ran on: a description for the record, and its measured peaks for the roofline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from ..info import cores, info

BURST_SECONDS = 0.03
AGREEMENT = 0.02  # the three best bursts must agree this well ...
MAX_BURSTS = 20  # ... or as many have been tried
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Level:
    """One level of memory: what fits in it, for all threads together, and how fast it can be read."""

    name: str
    bytes: float
    bandwidth: float  # bytes/s


@dataclass(frozen=True)
class Peaks:
    """Measured peaks of this machine at ``threads`` threads with the instruction set ``isa``.

    ``flops`` is in FLOP/s by dtype ("f32", "f64"); ``levels`` run from the first-level cache to main memory.
    """

    threads: int
    isa: str
    flops: dict[str, float]
    levels: tuple[Level, ...]

    @property
    def memory_bandwidth(self) -> float:
        """Bytes/s of reading main memory."""
        return self.levels[-1].bandwidth

    def roofline_seconds(self, flops: float, bytes: float, dtype: str = "f32") -> float:
        """The least time that ``flops`` operations on a working set of ``bytes``, each moved once, can take here.

        The bandwidth is that of the smallest memory level into which the working set fits.
        """
        level = next((level for level in self.levels if bytes <= level.bytes), self.levels[-1])
        compute = flops / self.flops[dtype] if dtype in self.flops else 0.0
        return max(compute, bytes / level.bandwidth)


def peaks(threads: int | None = None) -> Peaks:
    """The peaks of this machine, measured once per process and thread count (about a second).

    ``threads`` is ``torch.get_num_threads()`` if None, and never more than the cores that this process may use.
    Raises RuntimeError where the C++ kernels are not built.
    """
    return _measure(min(threads or torch.get_num_threads(), cores()))


@cache
def _measure(threads: int) -> Peaks:
    try:
        from .. import _cpu
    except ImportError as error:
        raise RuntimeError(f"measuring the machine's peaks needs the C++ kernels: {error}") from None

    def flops(dtype: str) -> float:
        return _best(threads, lambda team: _cpu.fma_flops(team, dtype, BURST_SECONDS))

    def bandwidth(bytes: int) -> float:
        return _best(threads, lambda team: _cpu.read_bandwidth(team, bytes, BURST_SECONDS))

    caches = cache_sizes(threads)
    beyond_caches = min(max([4 * capacity for _, capacity in caches] + [128 << 20]), 512 << 20)
    levels = [Level("memory", float("inf"), bandwidth(beyond_caches))]
    for name, capacity in reversed(caches):
        # Half of a cache: the other half is for whatever else is in it. No cache is slower than what is behind it.
        levels.insert(0, Level(name, capacity, max(bandwidth(capacity // 2), levels[0].bandwidth)))
    return Peaks(threads, _cpu.isa(), {dtype: flops(dtype) for dtype in ("f32", "f64")}, tuple(levels))


def _best(threads: int, burst: Callable[[int], float]) -> float:
    """The best of several bursts: other processes make a machine slower, never faster.

    On a machine so busy that the team never runs together one thread alone may do better than all; then that counts.
    """
    rates: list[float] = []
    while len(rates) < MAX_BURSTS:
        rates = sorted([*rates, burst(threads)])
        if len(rates) >= 3 and rates[-3] > (1 - AGREEMENT) * rates[-1]:
            break
    return max(rates[-1], burst(1))


def cache_sizes(threads: int) -> list[tuple[str, int]]:
    """(name, bytes) of each data cache that ``threads`` threads have together; empty where the system does not tell."""
    sizes = []
    for index in sorted(_CACHES.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
            shared = len(_cpu_list((index / "shared_cpu_list").read_text()))
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            copies = -(-threads // shared)
            sizes.append((f"L{level}", copies * int(size[:-1]) * 1024))
    return sizes


def _cpu_list(text: str) -> list[int]:
    """The CPUs of ``0-3,8``."""
    ranges = [part.split("-") for part in text.strip().split(",")]
    return [cpu for bounds in ranges for cpu in range(int(bounds[0]), int(bounds[-1]) + 1)]


def describe() -> dict[str, str | int | None]:
    """What a reader of a recorded result needs to know about where it came from."""
    found = info()
    names = ("cpu", "cores", "isa", "compiler", "platform", "python", "torch", "version", "commit")
    return {name: getattr(found, name) for name in names}
