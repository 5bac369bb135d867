"""Which kernels the tests force, and on tensors of which device.

PYCV_TEST_DEVICE=cuda puts every tensor on the GPU and forces the CUDA kernels there; ``standin`` does the same with a
stand-in for a GPU (tests/standin). With PYCV_CUDA_HOST=1 the tensors stay those of the CPU, which executes the CUDA
kernels. By default both are the CPU's. PYCV_TEST_BACKEND names other kernels: ``numba`` for the CPU, ``triton`` for a
GPU, or for the CPU with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

from pycv import problem
from pycv.kernels import cuda, triton

from . import standin

_asked = os.environ.get("PYCV_TEST_DEVICE", "cpu")
if _asked not in ("cpu", "cuda", "standin"):
    raise ValueError(f"PYCV_TEST_DEVICE={_asked}: expected cpu, cuda or standin")

STANDIN = _asked == "standin"
DEVICE = "cpu" if _asked == "cpu" else "cuda"
BACKEND = "cuda" if cuda.on_host() else os.environ.get("PYCV_TEST_BACKEND", DEVICE)
INTERPRETED = BACKEND == "triton" and triton.interpreted()  # where a kernel takes a second
FOR_GPUS = BACKEND in ("cuda", "triton")  # written for GPUs: they take the storage types of 16 bits, too
BY_HOST = DEVICE == "cpu" or STANDIN  # pycv._simt executes the CUDA kernels

for_cpu = pytest.mark.skipif(DEVICE == "cuda", reason="about tensors of the CPU and its kernels")
by_host = pytest.mark.skipif(not BY_HOST, reason="about host execution")
inductor = pytest.param(
    "inductor",
    marks=pytest.mark.skipif(
        DEVICE == "cuda" and (STANDIN or find_spec("triton") is None), reason="Inductor needs Triton for a GPU"
    ),
)
needs_device = pytest.mark.skipif(BY_HOST, reason="needs a GPU: PYCV_TEST_DEVICE=cuda on a machine that has one")


def missing() -> str | None:
    """Why the tests cannot run on the device that was asked for, in words."""
    if DEVICE == "cpu" or STANDIN:
        return None
    if not torch.cuda.is_available():
        return "PYCV_TEST_DEVICE=cuda: torch sees no GPU here"
    reason = cuda.unusable() if BACKEND == "cuda" else None
    return reason and f"PYCV_TEST_DEVICE=cuda: {reason}"


def device_name() -> str:
    """What runs the kernels under test."""
    if DEVICE == "cuda":
        return torch.cuda.get_device_name()
    return "this CPU, by Triton's interpreter" if INTERPRETED else "this CPU, by host execution"


def on_device(p: Any) -> Any:
    """The same problem with its tensors on the device under test."""
    return replace(p, device=DEVICE)


def parse(text: str) -> Any:
    """The problem of a text, on the device under test."""
    return on_device(problem.parse(text))


class Block:
    """Bytes that a kernel is given: those of ``bytes`` themselves, or on a GPU a copy."""

    def __init__(self, size: int, fill: int):
        self.bytes = np.full(size, fill, np.uint8)
        self._copy: torch.Tensor | None = None

    def there(self) -> int:
        """The address where the kernel finds them as they are now."""
        if DEVICE == "cpu":
            return self.bytes.ctypes.data
        self._copy = torch.from_numpy(self.bytes).to(DEVICE)
        return self._copy.data_ptr()

    def back(self) -> None:
        """What the kernel made of them, in ``bytes``."""
        if self._copy is not None:
            self.bytes[...] = self._copy.cpu().numpy()


_FACTORIES = ("arange", "empty", "eye", "full", "ones", "rand", "randint", "randn", "randperm", "tensor", "zeros")


def be_there() -> None:
    """What the tests make with torch.randn() and its like is on the device under test, unless they name another, and
    torch's own convolutions, which results are compared with, are as exact as ours. Nothing where that is the CPU.

    torch.set_default_device would do the former by a mode, in sight of which the ops leave their direct path.
    """
    if DEVICE == "cpu":
        return
    if STANDIN:
        standin.install()
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    for name in _FACTORIES:
        made_there = _there(getattr(torch, name))
        setattr(torch, name, made_there)
        torch.jit._builtins._register_builtin(made_there, f"aten::{name}")  # torch scripts functions that call it


def _there(factory: Any) -> Any:
    def make(*arguments: Any, **named: Any) -> Any:
        if named.get("generator") is not None:  # of the CPU: the values do not depend on the device
            return factory(*arguments, **named).to(DEVICE)
        return factory(*arguments, **{"device": DEVICE} | named)

    return make
