"""Workspace for the kernels: aligned memory that nobody reads after the call.

Small ones come out of a scratch buffer that each thread keeps, because allocating one costs a microsecond. A thread
runs one kernel at a time and a kernel never calls back into Python, so the buffer has one user.

Large ones come out of memory that was used before, because touching fresh memory costs more than most kernels do: a
page fault for every 4 KB, and malloc gives back to the system whatever is larger than 32 MB. Idle memory is shared by
all threads, at most IDLE_BYTES of it; whoever has taken some has it alone until they let go of it.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

ALIGNMENT = 256  # bytes: what plans for a GPU count on; those for the CPU ask for 64
SCRATCH_BYTES = 2**18
IDLE_BYTES = 2**28

_idle: list[Tensor] = []  # the last used at the end; each operation on it is atomic


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.memory = _fresh(SCRATCH_BYTES)
        self.address = _aligned(self.memory)


class _Large:
    """Holds memory that goes back to the idle one in the end."""

    __slots__ = ("memory",)

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory

    def __del__(self) -> None:
        if self.memory.nbytes <= IDLE_BYTES:
            _idle.append(self.memory)
            while sum(memory.nbytes for memory in _idle) > IDLE_BYTES:
                del _idle[:1]


def _fresh(size: int) -> Tensor:
    return torch.empty(size + ALIGNMENT, dtype=torch.uint8, device="cpu")


def _aligned(memory: Tensor) -> int:
    return memory.data_ptr() + -memory.data_ptr() % ALIGNMENT


_scratch = _Scratch()


def workspace(size: int, x: Tensor) -> tuple[object, int]:
    """At least ``size`` bytes of memory where ``x`` is: who holds it, and its address. Valid for as long as the caller
    keeps the holder and asks for no other.

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
    memory = _used(size)
    return _Large(memory), _aligned(memory)


def _used(size: int) -> Tensor:
    """Idle memory, or fresh. What is too small gives way, so that in the end all of it is as large as the largest."""
    if size + ALIGNMENT <= IDLE_BYTES:
        try:
            memory = _idle.pop()
        except IndexError:
            return _fresh(size)
        if memory.nbytes >= size + ALIGNMENT:
            return memory
        del memory
    return _fresh(size)
