"""Builds pycv._simt: the CUDA kernels of csrc/cuda for host execution, by the C++ compiler alone.

    python -m tools.simt

compiles what changed and links the module next to the package's others. With PYCV_CUDA_HOST=1 the entries of
kernels/cuda.py then run CUDA kernels on CPU tensors: slow, and the same code as on a GPU. The tests call it by
themselves; no wheel holds it.
"""

from __future__ import annotations

import fcntl
import sys
import sysconfig
from pathlib import Path

from . import native


def jobs(root: Path = native.ROOT) -> list[native.Job]:
    """Every kernel file, the runtime and the bindings."""
    import pybind11

    kernels = sorted(path.relative_to(root).as_posix() for path in (root / "csrc/cuda").glob("*.cu"))
    includes = (f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}")
    folder = f"simt/{sysconfig.get_config_var('SOABI')}"
    return [native.Job("csrc/bindings/cuda.cpp", folder, (*includes, "-DPYCV_SIMT", "-O1")), *native.simt_jobs(kernels)]


def build(root: Path = native.ROOT, progress: bool = True) -> Path:
    """pycv._simt of the tree at ``root``, compiled where it is out of date. Raises native.BuildError."""
    target = root / f"pycv/_simt{sysconfig.get_config_var('EXT_SUFFIX')}"
    toolchain = native.Toolchain()
    (root / "build").mkdir(exist_ok=True)
    with (root / "build/simt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a test run build it once
        objects = toolchain.compile(jobs(root), root, progress)
        newest = max(path.stat().st_mtime for path in objects)
        if not target.exists() or target.stat().st_mtime < newest:
            part = target.with_suffix(".part")
            toolchain.link(objects, part, ["-shared"])
            part.replace(target)
    return target


def main() -> int:
    try:
        print(build())
    except native.BuildError as error:
        sys.exit(f"pycv._simt cannot be built: the compiler says\n{error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
