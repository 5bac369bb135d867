"""Builds pycv._cpu with pybind11 and no torch; tools/native.py says how the C++ is compiled."""

import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tools import native

BINDINGS = "csrc/bindings/cpu.cpp"


class BuildKernels(build_ext):
    """Every kernel file once per instruction set, the dispatcher and the bindings, linked into one module."""

    def build_extension(self, ext):
        try:
            import pybind11
        except ImportError:
            sys.exit("pycv cannot be built here: pybind11 is not installed.\nInstall: pip install pybind11")
        toolchain = native.Toolchain()
        if problems := native.missing(toolchain):
            sys.exit(native.explain(problems))
        includes = (f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}")
        # Run-time speed is in the kernels; -O3 on pybind11's templates buys none and takes twice as long.
        bindings = native.Job(BINDINGS, sysconfig.get_config_var("SOABI"), (*includes, "-O1"))
        try:
            objects = toolchain.compile([bindings, *native.kernel_jobs(native.instruction_sets())])
            toolchain.link(objects, Path(self.get_ext_fullpath(ext.name)), ["-shared"])
        except native.BuildError as error:
            sys.exit(f"pycv cannot be built: the compiler says\n{error}")


setup(ext_modules=[Extension("pycv._cpu", sources=[])], cmdclass={"build_ext": BuildKernels})
