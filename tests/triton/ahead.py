"""Compiles what the Triton kernels' plans would launch, for a GPU that is not there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pycv import registry
from pycv.kernels import Kernel
from pycv.problem import Problem


class _Driver:
    """All that Triton's compiler asks of a device."""

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self):
        return self._target

    def get_current_device(self) -> int:
        return self._target.arch

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def pretending(capability: int) -> Iterator[None]:
    """Inside the block Triton compiles for this device, say 90."""
    from triton.runtime import driver

    before = driver._active
    driver.set_active(_Driver(capability))
    try:
        yield
    finally:
        driver.set_active(before)


def kernels(problem: Problem, algorithm: str) -> list[Kernel]:
    entries = registry.kernels(problem.op, problem.pass_)
    return [kernel for kernel in entries if kernel.name == f"triton:{algorithm}"]


def compiled(problem: Problem, algorithm: str) -> list[Any]:
    """Each launch of the plan, with all pointers that the problem has."""
    (kernel,) = kernels(problem, algorithm)
    assert kernel.plan is not None
    plan = kernel.plan(problem, 1, 2**28)
    absent = {name for name in ("bias", "residual") if name not in getattr(problem, "epilogue", ())}
    if "relu" not in getattr(problem, "epilogue", ()):
        absent.add("forward_output")
    return [launch.compiled(absent) for launch in plan.launches]


def spilled(binary: Any, capability: int, folder: Path) -> int:
    """Bytes of registers that a compiled kernel stores to memory and loads again, as ptxas counts them."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    source = folder / "kernel.ptx"
    source.write_text(binary.asm["ptx"])
    architecture = f"--gpu-name=sm_{capability}" + ("a" if capability >= 90 else "")
    command = [tool, "-v", architecture, source, "-o", folder / "kernel.cubin"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.findall(r"(\d+) bytes spill", report)
    assert found, f"ptxas says nothing about spills: has its wording changed?\n{report}"
    return max(map(int, found))
