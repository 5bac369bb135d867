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


def workspace(size: int, x: Tensor) -> tuple[Tensor | None, int]:
    """At least ``size`` bytes of memory where ``x`` is, valid until this thread asks again: who holds it, its address.

    On a GPU it comes out of torch's caching allocator, which aligns to 512 bytes and may hand it out again as soon as
    nobody holds it: whoever gets it runs later on the same stream.
    """
    if not x.is_cpu:
        if size == 0:
            return None, 0
        memory = torch.empty(size, dtype=torch.uint8, device=x.device)
        return memory, memory.data_ptr()
    if size <= SCRATCH_BYTES:
        return _scratch.memory, _scratch.address
    return _allocated(size)
