"""Builds pycv._simt: the CUDA kernels of csrc/cuda for host execution, by the C++ compiler alone.

    python -m tools.simt

compiles what changed and links the module next to the package's others. With PYCV_CUDA_HOST=1 the entries of
kernels/cuda.py then run CUDA kernels on CPU tensors: slow, and the same code as on a GPU. The tests call it by
themselves, and make() for programs of their own; no wheel holds it.
"""

from __future__ import annotations

import fcntl
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from . import native


def jobs(root: Path = native.ROOT, how: native.SimtBuild = native.SIMT_PLAIN) -> list[native.Job]:
    """Every kernel file, the runtime and the bindings."""
    import pybind11

    kernels = sorted(path.relative_to(root).as_posix() for path in (root / "csrc/cuda").glob("*.cu"))
    includes = (f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}")
    folder = f"simt/{sysconfig.get_config_var('SOABI')}"
    return [
        native.Job("csrc/bindings/cuda.cpp", folder, (*includes, "-DPYCV_SIMT", "-O1", *how.options)),
        *native.simt_jobs(kernels, how),
    ]


def build(root: Path = native.ROOT, progress: bool = True, how: native.SimtBuild = native.SIMT_PLAIN) -> Path:
    """pycv._simt of the tree at ``root``, compiled where it is out of date. Raises native.BuildError.

    Only the plain one goes where Python finds it; ``python -m tests.simt`` runs tests with the others.
    """
    folder = root / ("pycv" if how is native.SIMT_PLAIN else f"build/simt/{how.name}_module")
    target = folder / f"_simt{sysconfig.get_config_var('EXT_SUFFIX')}"
    return make(target, jobs(root, how), ["-shared", *how.link_options], root, progress)


def make(
    target: Path, jobs: Sequence[native.Job], link_options: Sequence[str], root: Path = native.ROOT,
    progress: bool = False,
) -> Path:  # fmt: skip
    """What these objects link to, compiled and linked where it is out of date, once for all processes that ask."""
    toolchain = native.Toolchain()
    (root / "build").mkdir(exist_ok=True)
    with (root / "build/simt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        objects = toolchain.compile(jobs, root, progress)
        newest = max(path.stat().st_mtime for path in objects)
        if not target.exists() or target.stat().st_mtime < newest:
            part = target.with_suffix(".part")
            toolchain.link(objects, part, link_options)
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
