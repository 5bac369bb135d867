"""What a GPU can do at best, measured with what its vendor has tuned, and the state that it is in.

Multiply-adds: torch's products of large matrices, in TF32, f16 and bf16 those of the tensor cores, in f32 with TF32 off
and in f64 those of whatever is fastest. Memory: copies of much more than the L2 cache holds, and of what fits in it.
Each is the best of several bursts, timed by CUDA events; a burst is replayed as a graph where it can be captured, so
that the host's time is no part of it. Kept in pycv's cache directory, per name and capability of the device.
"""

from __future__ import annotations

import hashlib
import math
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from ..choice import files
from . import device, machine
from .data import DTYPES
from .machine import Level, Peaks

SIDES = (4096, 8192)  # of the matrices: which is faster depends on how many processors there are
COPIED_BYTES = 2**30
BURST_SECONDS = 0.03
BURSTS = 5
MAX_CALLS = 200  # of a burst
_STATE = {
    "driver": "driver_version", "SM clock": "clocks.sm", "of at most": "clocks.max.sm", "memory clock": "clocks.mem",
    "temperature": "temperature.gpu", "power": "power.draw", "throttled by": "clocks_throttle_reasons.active",
}  # fmt: skip


def peaks() -> Peaks:
    """The peaks of the current GPU, measured once (a few seconds) and kept.

    Raises RuntimeError where there is none, or not enough of its memory.
    """
    return _peaks(name())


def remeasured() -> Peaks:
    """Measures again; of what is known and what is found now the better is kept."""
    known, found = recorded(), _measure()
    better = found if known is None else found.joined(known)
    _keep(better)
    _peaks.cache_clear()
    return better


def recorded() -> Peaks | None:
    """What was measured before on such a GPU; None if nothing was. Never measures."""
    return machine.kept(_file()).get(1) if torch.cuda.is_available() else None


def name() -> str:
    """The current GPU's, with its compute capability."""
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU here")
    return "{} ({}.{})".format(torch.cuda.get_device_name(), *torch.cuda.get_device_capability())


def state() -> str:
    """Clocks, temperature, power, and what holds the clocks down (a mask of bits: 0 if nothing), as nvidia-smi tells
    them now; empty where it does not."""
    query = ["nvidia-smi", f"--query-gpu={','.join(_STATE.values())}", "--format=csv,noheader"]
    try:
        found = subprocess.run([*query, f"--id={_uuid()}"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    values = found.stdout.strip().split(", ")
    return ", ".join(f"{what} {value}" for what, value in zip(_STATE, values, strict=False))


def _uuid() -> str:
    found = str(getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", "0"))
    return found if found.isdecimal() else f"GPU-{found}"


@cache
def _peaks(gpu: str) -> Peaks:
    known = recorded()
    if known is None:
        known = _measure()
        _keep(known)
    return known


def _file() -> Path:
    return files.cache_dir() / f"peaks-gpu-{hashlib.sha256(name().encode()).hexdigest()[:12]}.json"


def _keep(found: Peaks) -> None:
    machine.keep(_file(), found.gpu, found)


def _measure() -> Peaks:
    gpu = name()
    with device.fair():
        flops = {dtype: _product_rate(DTYPES[dtype]) for dtype in ("f64", "f32", "f16", "bf16")}
        torch.backends.cuda.matmul.allow_tf32 = True
        flops["tf32"] = _product_rate(torch.float32)
        cached = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        memory = Level("memory", math.inf, _copy_rate(COPIED_BYTES))
        levels = [memory]
        if cached:  # half of it, as on the CPU; no cache is slower than what is behind it
            levels.insert(0, Level("L2", cached, max(_copy_rate(cached // 2), memory.bandwidth)))
    return Peaks(1, "", flops, tuple(levels), gpu)


def _product_rate(dtype: torch.dtype) -> float:
    """FLOP/s."""
    rates = []
    for side in SIDES:
        a, b, c = (torch.randn(side, side).to("cuda", dtype) for _ in range(3))
        rates.append(2 * side**3 / _seconds(lambda a=a, b=b, c=c: torch.mm(a, b, out=c)))  # type: ignore[misc]
    return max(rates)


def _copy_rate(bytes: int) -> float:
    """Bytes/s of copying, what is read and what is written together ``bytes``."""
    source, target = (torch.zeros(bytes // 2, dtype=torch.uint8).to("cuda") for _ in range(2))
    return 2 * source.numel() / _seconds(lambda: target.copy_(source))


def _seconds(call: Callable[[], object]) -> float:
    """Of a call among many in a row."""
    call()
    count = min(math.ceil(BURST_SECONDS / _timed(call)), MAX_CALLS)

    def burst() -> None:
        for _ in range(count):
            call()

    run = device.captured(burst) or burst
    return min(_timed(run) for _ in range(BURSTS)) / count


def _timed(call: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    end.synchronize()
    return max(begin.elapsed_time(end) / 1e3, 1e-9)
