"""Builds pycv._cpu, and pycv._cuda where there is a GPU, with pybind11 and no torch; with PYCV_NATIVE=0 neither.

tools/native.py says how the C++ is compiled, tools/cuda.py when and how the CUDA is.
"""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tools import cuda, native

BINDINGS = "csrc/bindings/cpu.cpp"


class BuildKernels(build_ext):
    """A module is linked from the objects of all kernel files of a backend and its bindings."""

    def build_extension(self, ext):
        try:
            import pybind11  # noqa: F401
        except ImportError:
            sys.exit("pycv cannot be built here: pybind11 is not installed.\nInstall: pip install pybind11")
        if problems := native.missing(native.Toolchain()):
            sys.exit(native.explain(problems))
        try:
            BUILDS[ext.name](Path(self.get_ext_fullpath(ext.name)))
        except (native.BuildError, ValueError) as error:
            sys.exit(f"{ext.name} cannot be built: {error}")


def build_cpu(target: Path) -> None:
    """Every kernel file once per instruction set, the dispatcher and the bindings."""
    import pybind11

    toolchain = native.Toolchain()
    includes = (f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}")
    # Run-time speed is in the kernels; -O3 on pybind11's templates buys none and takes twice as long.
    bindings = native.Job(BINDINGS, sysconfig.get_config_var("SOABI"), (*includes, "-O1"))
    objects = toolchain.compile([bindings, *native.kernel_jobs(native.instruction_sets())])
    toolchain.link(objects, target, ["-shared"])


NATIVE = os.environ.get("PYCV_NATIVE") != "0"
BUILDS = {"pycv._cpu": build_cpu} if NATIVE else {}
if NATIVE and cuda.wanted():
    if cuda.home() or cuda.forced():
        BUILDS["pycv._cuda"] = cuda.build
    else:
        print(f"pycv: a GPU but no nvcc, so that no CUDA kernels are built: {cuda.INSTALL}", file=sys.stderr)

setup(ext_modules=[Extension(name, sources=[]) for name in BUILDS], cmdclass={"build_ext": BuildKernels})
