"""Which machine this is, as far as times on it are concerned: the device class that measurements are kept under."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

import torch

from ..kernels import cuda as _cuda_backend
from ..kernels import triton as _triton_backend


@dataclass(frozen=True)
class Device:
    """A device class: times measured on one machine of the class hold on the others.

    ``isa`` is the instruction set of pycv's kernels in use, ``torch_isa`` that of torch's.
    """

    cpu: str
    isa: str
    torch_isa: str

    def __str__(self) -> str:
        return f"{self.cpu}, {self.isa}"

    @property
    def digest(self) -> str:
        """A short name for files."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:12]


@cache
def current() -> Device:
    """This machine's. Raises RuntimeError where the C++ kernels are not built or PYCV_CPU_ISA cannot be had."""
    try:
        from .. import _cpu
    except ImportError as error:
        raise RuntimeError(f"the C++ kernels are not built: {error}") from None
    return Device(cpu_model(), _cpu.isa(), torch.backends.cpu.get_cpu_capability())


_sources: set[Path] = set()


def add_source(file: Path) -> None:
    """A file of kernels that a user has registered: what it holds is part of the hashes from here on."""
    _sources.add(file)
    kernel_hash.cache_clear()
    gpu_kernel_hash.cache_clear()


@cache
def kernel_hash() -> str:
    """Of the extension file and of users' kernels: other kernels, other times."""
    from .. import _cpu

    return _hash([Path(_cpu.__file__), *sorted(_sources)])


@cache
def cpu_model() -> str:
    """The CPU's name as the system gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    match = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


@dataclass(frozen=True)
class Gpu:
    """A class of GPUs, and the versions of what torch and Triton run on it."""

    gpu: str
    capability: str
    cuda: str | None
    cudnn: int | None
    triton: str | None


def current_gpu() -> Gpu:
    """That of torch's current device. Raises RuntimeError where torch has none."""
    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device that torch can use")
    triton = None if _triton_backend.missing() else import_module("triton").__version__
    capability = "{}.{}".format(*torch.cuda.get_device_capability())
    return Gpu(torch.cuda.get_device_name(), capability, torch.version.cuda, torch.backends.cudnn.version(), triton)


@cache
def gpu_kernel_hash() -> str:
    """Of the CUDA extension, if it is built, of the sources of the Triton kernels, and of users' kernels."""
    extension = [] if _cuda_backend._cuda is None else [Path(_cuda_backend._cuda.__file__)]
    sources = sorted(Path(_triton_backend.__file__).parent.glob("*.py"))
    return _hash([*extension, *sources, *sorted(_sources)])


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
