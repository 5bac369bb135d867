"""A GPU where there is none: torch's tensors of device ``cuda`` in this machine's memory.

PYCV_TEST_DEVICE=standin runs the tests as PYCV_TEST_DEVICE=cuda does, on ``cuda`` tensors through every branch that is
taken for them, with host execution in place of the device. gpu.cpp gives torch the device: memory, guards, and every
op of torch by way of the CPU. :func:`install` gives Python what torch.cuda and pycv._cuda would.

It shows that the tests and the ops are fit for tensors of a GPU, whatever lies between them and the launch included.
It cannot show what a device does otherwise than host execution, nor anything about streams: there is only one.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

NAME = "stand-in GPU"
SOURCE = "tests/standin/gpu.cpp"


def load() -> None:
    """Compiles gpu.cpp and loads it. Has to come before the first import of torch, which looks for devices once."""
    assert "torch" not in sys.modules, "PYCV_TEST_DEVICE=standin: torch was imported before the tests"
    ctypes.CDLL(str(_built()), ctypes.RTLD_GLOBAL)


def _built() -> Path:
    from tools import native

    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    include, libraries = folder / "include", folder / "lib"
    options = ("-O0", "-w", f"-isystem{include}", f"-isystem{include}/torch/csrc/api/include")
    toolchain = native.Toolchain()
    (native.ROOT / "build").mkdir(exist_ok=True)
    with (native.ROOT / "build/standin.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a test run build it once
        (made,) = toolchain.compile([native.Job(SOURCE, "standin", options)], progress=False)
        target = made.with_suffix(".so")
        if not target.exists() or target.stat().st_mtime < made.stat().st_mtime:
            link = ["-shared", f"-L{libraries}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{libraries}"]
            toolchain.link([made], target, link)
    return target


class _Plan:
    """A plan of pycv._simt with the stream that those of pycv._cuda take last."""

    def __init__(self, plan: Any):
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plan, name)

    def launch(self, *arguments: int) -> None:
        self._plan.launch(*arguments[:-1])

    def run(self, *arguments: Any, stream: int, **named: Any) -> None:
        self._plan.run(*arguments, **named)

    def prepare_weight(self, weight: int, prepared: int, stream: int) -> None:
        self._plan.prepare_weight(weight, prepared)


class _Event:
    """A moment of this machine's clock: nothing is asynchronous."""

    def __init__(self, enable_timing: bool = False):
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None: ...

    def elapsed_time(self, end: _Event) -> float:
        return 1e3 * (end.at - self.at)


class _Stream:
    """The only one there is."""

    def wait_stream(self, other: _Stream) -> None: ...


class _Module(ModuleType):
    """pycv._cuda, by host execution."""

    architectures = "9.0a"
    runtime_version = 13000
    device_count = staticmethod(lambda: 1)
    device_error = staticmethod(lambda: "")
    capability = staticmethod(lambda device: (9, 0))
    device_of = staticmethod(lambda address: 0 if address else -1)

    def __getattr__(self, name: str) -> Any:
        from pycv.kernels import cuda

        found = getattr(cuda.host_module(), name)
        return (lambda *arguments: _Plan(found(*arguments))) if name.endswith("_plan") else found


def install() -> None:
    """Puts the device where torch.cuda and kernels/cuda.py look for one. pycv._simt has to be built."""
    import torch

    from pycv.kernels import cuda, triton

    answers = {
        "_lazy_init": None, "is_available": True, "is_initialized": False, "device_count": 1, "current_device": 0,
        "get_device_name": NAME, "get_device_capability": (9, 0), "synchronize": None, "manual_seed_all": None,
        # Too old for Triton, by its version: there is no driver to launch anything else.
        "get_device_properties": SimpleNamespace(major=0, minor=0, L2_cache_size=2**20, multi_processor_count=2),
        "is_current_stream_capturing": False, "empty_cache": None, "is_bf16_supported": True,
        "current_stream": _Stream(), "set_stream": None, "stream": nullcontext(), "_sleep": None,
        "memory_allocated": 0, "max_memory_allocated": 2**20, "reset_peak_memory_stats": None,
        "get_rng_state": torch.empty(0, dtype=torch.uint8), "set_rng_state": None,
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    torch.cuda.device = lambda *_: nullcontext()
    torch.cuda.profiler.start = torch.cuda.profiler.stop = lambda: None
    torch.cuda.Event, torch.cuda.Stream = _Event, _Stream
    torch._C._cuda_getCurrentRawStream = lambda device: 0
    torch._C._cuda_getDevice = lambda: 0
    cuda._cuda = _Module("pycv._cuda")
    triton._unusable = lambda: f"{NAME}: it has no driver for Triton"
