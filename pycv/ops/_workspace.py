"""Workspace for the kernels: aligned memory that nobody reads after the call.

Small ones come out of a scratch buffer that each thread keeps, because allocating one costs a microsecond. A thread
runs one kernel at a time and a kernel never calls back into Python, so the buffer has one user.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

ALIGNMENT = 64  # bytes
SCRATCH_BYTES = 2**18


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.memory, self.address = _allocated(SCRATCH_BYTES)


def _allocated(size: int) -> tuple[Tensor, int]:
    memory = torch.empty(size + ALIGNMENT, dtype=torch.uint8, device="cpu")
    return memory, memory.data_ptr() + -memory.data_ptr() % ALIGNMENT


_scratch = _Scratch()


def workspace(size: int) -> tuple[Tensor, int]:
    """At least ``size`` bytes of CPU memory, valid until this thread asks again: who holds it, and its address."""
    if size <= SCRATCH_BYTES:
        return _scratch.memory, _scratch.address
    return _allocated(size)
