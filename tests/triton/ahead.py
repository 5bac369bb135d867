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
from pycv.kernels import triton as backend
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
    """Inside the block Triton compiles for this device, say 90, and kernels offer tiles for it."""
    from triton.runtime import driver

    from pycv.kernels.triton import tiles

    before = driver._active, backend._tile_limits
    driver.set_active(_Driver(capability))
    backend._tile_limits = lambda: tiles.HOPPER if capability >= 90 else tiles.AMPERE
    try:
        yield
    finally:
        driver.set_active(before[0])
        backend._tile_limits = before[1]


def kernels(problem: Problem, algorithm: str) -> list[Kernel]:
    entries = registry.kernels(problem.op, problem.pass_)
    return [kernel for kernel in entries if kernel.name == f"triton:{algorithm}"]


def compiled(problem: Problem, kernel: Kernel) -> list[Any]:
    """Each launch of the plan, with all pointers that the problem has."""
    assert kernel.plan is not None
    plan = kernel.plan(problem, 1, 2**28)
    absent = {name for name in ("bias", "residual") if name not in getattr(problem, "epilogue", ())}
    if "relu" not in getattr(problem, "epilogue", ()):
        absent.add("forward_output")
    return [launch.compiled(absent) for launch in plan.launches]


def spilled(binary: Any, capability: int, folder: Path) -> tuple[int, int]:
    """Bytes of registers that a compiled kernel stores to memory and loads again, as ptxas counts them, and how many
    registers it has."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    source = folder / "kernel.ptx"
    source.write_text(binary.asm["ptx"])
    architecture = f"--gpu-name=sm_{capability}" + ("a" if capability >= 90 else "")
    command = [tool, "-v", architecture, source, "-o", folder / "kernel.cubin"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    bytes, registers = re.findall(r"(\d+) bytes spill", report), re.findall(r"Used (\d+) registers", report)
    assert bytes and registers, f"ptxas says nothing about spills: has its wording changed?\n{report}"
    return max(map(int, bytes)), max(map(int, registers))
