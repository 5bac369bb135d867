"""Which GPU kernels have been verified on a device: ``verified.json``, an entry per kernel and device class.

A GPU kernel whose class of device is not in it was only compiled, and executed by a CPU: by default it is not chosen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from ..kernels import Kernel
from ..problem import Problem

FILE = Path(__file__).with_name("verified.json")


@dataclass(frozen=True)
class Verification:
    """That a kernel passed all of its tests on a device: when, and as of which commit."""

    op: str
    pass_: str
    kernel: str
    device: str
    date: str
    commit: str


@cache
def records() -> tuple[Verification, ...]:
    """All of them."""
    return tuple(Verification(**entry) for entry in json.loads(FILE.read_text())["kernels"])


def of(kernel: Kernel) -> list[Verification]:
    """Those of one kernel."""
    return [v for v in records() if (v.op, v.pass_, v.kernel) == (kernel.op, kernel.pass_, kernel.name)]


def trusted(kernel: Kernel, problem: Problem) -> bool:
    """Whether the kernel may be chosen for a problem that nobody asked to give to it."""
    if not kernel.on_gpu:
        return True
    return problem.device == "cuda" and torch.cuda.get_device_name() in {v.device for v in of(kernel)}
