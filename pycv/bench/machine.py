"""The machine that a benchmark ran on: a description for the record, and its measured peaks for the roofline.

Those of a GPU are in gpu.py.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..choice import device, files
from ..info import cores, info

BURST_SECONDS = 0.03
AGREEMENT = 0.02  # the three best bursts must agree this well ...
MAX_BURSTS = 20  # ... or as many have been tried
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Level:
    """One level of memory: what fits in it, for all threads together, and how fast it can be read, or copied in."""

    name: str
    bytes: float
    bandwidth: float  # bytes/s


@dataclass(frozen=True)
class Peaks:
    """Measured peaks of this machine at ``threads`` threads with the instruction set ``isa``, or of its GPU.

    ``flops`` is in FLOP/s by dtype ("f32", "f64", on a GPU also "tf32", "f16", "bf16"); ``levels`` run from the
    first-level cache to main memory. ``gpu``: its name, where these are a GPU's.
    """

    threads: int
    isa: str
    flops: dict[str, float]
    levels: tuple[Level, ...]
    gpu: str = ""

    @property
    def device(self) -> str:
        """Of the problems that these bound."""
        return "cuda" if self.gpu else "cpu"

    @property
    def memory_bandwidth(self) -> float:
        """Bytes/s of reading or copying main memory."""
        return self.levels[-1].bandwidth

    def level_of(self, working_set: float) -> Level:
        """The smallest level into which so many bytes fit."""
        return next((level for level in self.levels if working_set <= level.bytes), self.levels[-1])

    def move_seconds(self, bytes: float, working_set: float | None = None) -> float:
        """The least time in which ``bytes`` out of a working set (if None: of as many) can be moved, each once.

        The bandwidth is that of the level that holds the working set; what of it the next smaller level can hold may
        still lie there.
        """
        level = self.level_of(bytes if working_set is None else working_set)
        index = self.levels.index(level)
        if index == 0:
            return bytes / level.bandwidth
        nearer = self.levels[index - 1]
        near = min(bytes, nearer.bytes)
        return near / nearer.bandwidth + (bytes - near) / level.bandwidth

    def roofline_seconds(self, flops: float, bytes: float, dtype: str = "f32") -> float:
        """The least time that ``flops`` operations on a working set of ``bytes``, each moved once, can take here."""
        compute = flops / self.flops[dtype] if dtype in self.flops else 0.0
        return max(compute, self.move_seconds(bytes))

    def joined(self, other: Peaks) -> Peaks:
        """The better of two measurements of one machine, rate by rate: others make it slower, never faster."""
        flops = {dtype: max(rate, other.flops.get(dtype, 0.0)) for dtype, rate in self.flops.items()}
        bandwidths = {level.name: level.bandwidth for level in other.levels}
        levels = [replace(one, bandwidth=max(one.bandwidth, bandwidths.get(one.name, 0.0))) for one in self.levels]
        return replace(self, flops=flops, levels=tuple(levels))

    def to_json(self) -> dict[str, Any]:
        """Plain types; the size of main memory is null."""
        levels = [
            {"name": one.name, "bytes": None if math.isinf(one.bytes) else one.bytes, "bandwidth": one.bandwidth}
            for one in self.levels
        ]
        found = {"threads": self.threads, "isa": self.isa, "flops": dict(self.flops), "levels": levels}
        return found | ({"gpu": self.gpu} if self.gpu else {})

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Peaks:
        """Raises ValueError, TypeError or KeyError for what :meth:`to_json` has not made."""
        levels = tuple(
            Level(one["name"], math.inf if one["bytes"] is None else one["bytes"], one["bandwidth"])
            for one in value["levels"]
        )
        found = Peaks(int(value["threads"]), value["isa"], dict(value["flops"]), levels, value.get("gpu", ""))
        rates = [*found.flops.values(), *(level.bandwidth for level in levels)]
        if not levels or not found.flops or not all(math.isfinite(rate) and rate > 0 for rate in rates):
            raise ValueError("rates must be positive numbers")
        return found


# ----------------------------------------------------------------------------------------------- measured and kept

SCHEMA = 1


def peaks(threads: int | None = None) -> Peaks:
    """The peaks of this machine, measured once (about two seconds) and kept in pycv's cache directory.

    ``threads`` is ``torch.get_num_threads()`` if None, and never more than the cores that this process may use.
    Raises RuntimeError where the C++ kernels are not built.
    """
    return _peaks(_team(threads))


def remeasured(threads: int | None = None) -> Peaks:
    """Measures again; of what is known and what is found now the better is kept."""
    team = _team(threads)
    known, found = recorded(team), _measure(team)
    better = found if known is None else found.joined(known)
    _keep(better)
    _peaks.cache_clear()
    return better


def recorded(threads: int | None = None) -> Peaks | None:
    """What was measured before on a machine of this class; None if nothing was. Never measures."""
    try:
        return kept(_file(device.current())).get(_team(threads))
    except RuntimeError:  # the C++ kernels are not built
        return None


def peaks_of(isa: str, threads: int | None = None) -> Peaks | None:
    """The peaks with another instruction set of this build; None where this machine cannot run it."""
    here, team = device.current(), _team(threads)
    if isa == here.isa:
        return peaks(team)
    known = kept(_file(replace(here, isa=isa))).get(team)
    if known is not None:
        return known
    code = f"import json; from pycv.bench import machine; print(json.dumps(machine.peaks({team}).to_json()))"
    environment = os.environ | {"PYCV_CPU_ISA": isa}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    return Peaks.from_json(json.loads(done.stdout)) if done.returncode == 0 else None


def _team(threads: int | None) -> int:
    return min(threads or torch.get_num_threads(), cores())


@cache
def _peaks(threads: int) -> Peaks:
    known = recorded(threads)
    if known is None:
        known = _measure(threads)
        _keep(known)
    return known


def _file(here: device.Device) -> Path:
    return files.cache_dir() / f"peaks-{here.digest}.json"


def kept(path: Path) -> dict[int, Peaks]:
    """The peaks in a file, by number of threads; none where there is no such file."""
    value = files.read(path, _check)
    return {} if value is None else {int(count): Peaks.from_json(one) for count, one in value["threads"].items()}


def _check(value: Any) -> None:
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise ValueError(f"expected peaks of schema {SCHEMA}")
    for one in value["threads"].values():
        Peaks.from_json(one)


def _keep(found: Peaks) -> None:
    here = device.current()
    keep(_file(here), asdict(here), found)


def keep(path: Path, about: Any, found: Peaks) -> None:
    """Puts peaks in a file beside those of other numbers of threads; ``about``: the device, for those who read it."""
    try:
        with files.locked(path):
            every = {str(count): one.to_json() for count, one in (kept(path) | {found.threads: found}).items()}
            files.write(path, {"schema": SCHEMA, "device": about, "threads": every})
    except OSError as error:
        warnings.warn(f"the machine's peaks cannot be kept in {path}: {error}", stacklevel=2)


def _measure(threads: int) -> Peaks:
    try:
        from .. import _cpu
    except ImportError as error:
        raise RuntimeError(f"measuring the machine's peaks needs the C++ kernels: {error}") from None

    def flops(dtype: str) -> float:
        return _best(threads, lambda team: _cpu.fma_flops(team, dtype, BURST_SECONDS))

    def bandwidth(bytes: int) -> float:
        """Of reading or of copying, whichever is faster: some levels load and store at once."""
        read = _best(threads, lambda team: _cpu.read_bandwidth(team, bytes, BURST_SECONDS))
        return max(read, _best(threads, lambda team: _cpu.copy_bandwidth(team, bytes, BURST_SECONDS)))

    caches = cache_sizes(threads)
    beyond_caches = min(max([4 * capacity for _, capacity in caches] + [128 << 20]), 512 << 20)
    levels = [Level("memory", math.inf, bandwidth(beyond_caches))]
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
