"""Builds pycv._cpu: every kernel file of csrc/cpu once per instruction set. Needs pybind11, never torch.

PYCV_CXXFLAGS adds compiler flags, PYCV_SANITIZE=address,undefined builds with sanitizers, MAX_JOBS bounds
parallel compilation.
"""

import os
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

KERNELS = sorted(str(path) for path in Path("csrc/cpu").glob("*.cpp"))
COMMON = ["csrc/cpu/dispatch.cc", "csrc/bindings/cpu.cpp"]
HEADERS = sorted(str(path) for path in Path("csrc").rglob("*.h"))
FLAGS = ["-std=c++20", "-O3", "-fopenmp", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden", "-Wall"]

# name: (level in isa.h, vector bytes, compiler flags)
X86 = {
    "baseline": (0, 16, []),
    "avx2": (1, 32, ["-mavx2", "-mfma", "-mf16c", "-mbmi2"]),
    "avx512": (
        2,
        64,
        ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mbmi2", "-mprefer-vector-width=512"],
    ),
}
PORTABLE = {"baseline": (0, 16, [])}


def instruction_sets():
    """The sets to compile for the target, which PYCV_TARGET_MACHINE names when cross-compiling."""
    machine = os.environ.get("PYCV_TARGET_MACHINE", platform.machine())
    return X86 if machine in ("x86_64", "AMD64") else PORTABLE


class BuildKernels(build_ext):
    """Compiles each (file, instruction set) pair in parallel, with a line of progress each."""

    def build_extension(self, ext):
        flags = FLAGS + os.environ.get("PYCV_CXXFLAGS", "").split()
        link = ["-fopenmp"]
        if sanitize := os.environ.get("PYCV_SANITIZE"):
            flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g"]
            link.append(f"-fsanitize={sanitize}")
        jobs = [(source, "common", []) for source in COMMON]
        for name, (level, width, options) in instruction_sets().items():
            macros = [f"-DPYCV_ISA={name}", f"-DPYCV_ISA_LEVEL=pycv::cpu::Isa::{name}", f"-DPYCV_VECTOR_BYTES={width}"]
            jobs += [(source, name, macros + options) for source in KERNELS]
        ext.extra_objects = self.compile_all(jobs, flags)
        ext.depends = ext.extra_objects  # distutils links again only if one of these is newer
        ext.extra_link_args = ext.extra_link_args + link
        ext.depends = ext.extra_objects  # link again when one is newer
        super().build_extension(ext)

    def compile_all(self, jobs, flags):
        newest_header = max(os.path.getmtime(header) for header in HEADERS + ["setup.py"])

        def compile_one(job):
            source, name, options = job
            start = time.time()
            target = Path(self.build_temp) / name
            expected = target / Path(source).with_suffix(".o")
            if expected.exists() and expected.stat().st_mtime > max(newest_header, os.path.getmtime(source)):
                return str(expected)
            (built,) = self.compiler.compile(
                [source],
                output_dir=str(target),
                include_dirs=self.compiler.include_dirs + self.extensions[0].include_dirs,
                extra_postargs=flags + options,
            )
            print(f"  compiled {source} ({name}) in {time.time() - start:.1f} s", file=sys.stderr, flush=True)
            return built

        self.compiler.compiler_so = [
            f for f in self.compiler.compiler_so if f not in ("-g", "-O2", "-O3", "-Wstrict-prototypes")
        ]
        workers = int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(compile_one, jobs))


setup(
    ext_modules=[Pybind11Extension("pycv._cpu", sources=[], language="c++", cxx_std=20)],
    cmdclass={"build_ext": BuildKernels},
)
