"""Compiles the C++ of csrc: what setup.py, the native self-test and the mutants share. Standard library only.

Every kernel file of csrc/cpu is compiled once per instruction set, in parallel and incrementally: an object is
built again when its source or a header that it includes is newer (the compiler's own dependency files say which).
Objects lie in build/objects/HASH, where HASH stands for the compiler and all flags, so that two configurations never
mix.

``python tools/native.py`` checks that this machine can build, and names the packages to install if it cannot.

Environment: CXX names the compiler, PYCV_CXXFLAGS adds flags, MAX_JOBS bounds parallel compilation.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGS = (
    "-std=c++20", "-O3", "-fopenmp", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno", "-Wall",
)  # fmt: skip
OLDEST_GCC = 11  # C++20: constinit, concepts

PACKAGES = {
    "compiler": {"Debian/Ubuntu": "g++", "Fedora": "gcc-c++"},
    "headers": {"Debian/Ubuntu": "python3-dev", "Fedora": "python3-devel"},
    "openmp": {"Debian/Ubuntu": "g++ libgomp1", "Fedora": "libgomp"},
    "venv": {"Debian/Ubuntu": "python3-venv", "Fedora": "python3-pip"},
}


@dataclass(frozen=True)
class InstructionSet:
    """One compilation of every kernel file: its namespace and Isa enumerator (csrc/cpu/isa.h), vectors and flags."""

    name: str
    vector_bytes: int
    flags: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        macros = {"ISA": self.name, "ISA_LEVEL": f"pycv::cpu::Isa::{self.name}", "VECTOR_BYTES": self.vector_bytes}
        return tuple(f"-DPYCV_{key}={value}" for key, value in macros.items()) + self.flags


BASELINE = InstructionSet("baseline", 16)
X86 = (
    BASELINE,
    InstructionSet("avx2", 32, ("-mavx2", "-mfma", "-mf16c", "-mbmi2")),
    InstructionSet(
        "avx512", 64,
        ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mbmi2", "-mprefer-vector-width=512"),
    ),
)  # fmt: skip


def instruction_sets(machine: str = platform.machine()) -> tuple[InstructionSet, ...]:
    """Those to compile for a machine, as ``uname -m`` names it."""
    return X86 if machine in ("x86_64", "AMD64") else (BASELINE,)


def runnable() -> list[InstructionSet]:
    """Those of this machine's build that its processor has."""
    flags = Path("/proc/cpuinfo").read_text()
    needs = {"avx2": (" avx2 ", " fma "), "avx512": (" avx512f ", " avx512bw ", " avx512dq ", " avx512vl ")}
    return [isa for isa in instruction_sets() if all(word in flags for word in needs.get(isa.name, ()))]


@dataclass(frozen=True)
class Job:
    """One object file to make. ``folder`` keeps the objects of one source apart."""

    source: str
    folder: str
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.source} ({self.folder})"


def kernel_jobs(sets: Sequence[InstructionSet]) -> list[Job]:
    """Every kernel file for each of these instruction sets, and the dispatcher that they need."""
    kernels = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc/cpu").glob("*.cpp"))
    jobs = [Job(source, isa.name, isa.options) for source in kernels for isa in sets]
    return [*jobs, Job("csrc/cpu/dispatch.cc", "common")]


@dataclass(frozen=True)
class SimtBuild:
    """A way to compile CUDA sources for execution on the host (csrc/simt): options of all objects, kernels, linking."""

    name: str
    options: tuple[str, ...] = ()
    kernel_options: tuple[str, ...] = ()
    link_options: tuple[str, ...] = ()


SIMT_PLAIN = SimtBuild("plain")
# Accesses out of bounds or misaligned end the program with a report that names the line.
SIMT_ADDRESSES = SimtBuild(
    "addresses",
    ("-O1", "-g1", "-fno-omit-frame-pointer", "-fsanitize=address,alignment", "-fno-sanitize-recover=alignment"),
    link_options=("-fsanitize=address,alignment",),
)
# ThreadSanitizer reports the races between CUDA threads. The runtime, which they share, is none of its business.
SIMT_RACES = SimtBuild(
    "races",
    ("-O1", "-g1", "-fno-omit-frame-pointer", "-DPYCV_SIMT_RACES"),
    kernel_options=("-fsanitize=thread",),
    link_options=("-fsanitize=thread",),
)


def simt_jobs(sources: Sequence[str], build: SimtBuild = SIMT_PLAIN) -> list[Job]:
    """CUDA sources for execution on the host, and the runtime that executes them; all of it has to be one module.

    Kernels may cast between float and float4 as under nvcc. The fused multiply-add that every GPU has is an
    instruction where this machine has it, else a library call.
    """
    common = ("-O2", "-DPYCV_SIMT", "-Icsrc/cuda", *build.options)
    fma = ("-mavx2", "-mfma") if "avx2" in (isa.name for isa in runnable()) else ()
    kernel = (*common, "-fno-strict-aliasing", "-Wno-unknown-pragmas", *fma, *build.kernel_options, "-x", "c++")
    runtime = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc/simt").glob("*.cpp"))
    return [*(Job(source, "simt", kernel) for source in sources), *(Job(source, "simt", common) for source in runtime)]


class BuildError(Exception):
    """A compiler or linker call failed; the text is its output."""


class Toolchain:
    """A C++ compiler with the flags that everything gets."""

    def __init__(self, cxx: str | None = None, flags: Sequence[str] = FLAGS):
        self.command = shlex.split(cxx or os.environ.get("CXX") or "g++")
        self.flags = (*flags, *shlex.split(os.environ.get("PYCV_CXXFLAGS", "")))

    @cached_property
    def version(self) -> str | None:
        """The first line of ``--version``, None where there is no such compiler."""
        if shutil.which(self.command[0]) is None:
            return None
        return next(iter(self._run(["--version"]).splitlines()), self.command[0])

    def gcc_major(self) -> int:
        """The major version of a GCC; 0 of any other compiler."""
        macros = self._run(["-dM", "-E", "-x", "c++", os.devnull])
        if "__clang__" in macros:
            return 0
        line = next((line for line in macros.splitlines() if line.startswith("#define __GNUC__ ")), "0")
        return int(line.split()[-1])

    def compile(self, jobs: Sequence[Job], root: Path = ROOT, progress: bool = True) -> list[Path]:
        """The objects of these jobs, in their order; compiles those that are out of date."""
        targets = [self.object_path(job, root) for job in jobs]
        stale = [(job, target) for job, target in zip(jobs, targets, strict=True) if not _up_to_date(target, root)]
        started = time.monotonic()
        if stale and progress:
            print(f"{self.version}, flags {' '.join(self.flags)}", file=sys.stderr)
            print(f"compiling {len(stale)} of {len(jobs)} objects, {worker_count()} at a time", file=sys.stderr)
        with ThreadPoolExecutor(worker_count()) as pool:
            futures = {pool.submit(self._compile_one, job, target, root): job for job, target in stale}
            try:
                for number, future in enumerate(as_completed(futures), 1):
                    output = future.result()
                    if progress:
                        seconds = time.monotonic() - started
                        print(f"  [{number}/{len(stale)}] {futures[future]}, {seconds:.0f} s", file=sys.stderr)
                    if output:
                        print(output, file=sys.stderr)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return targets

    def object_path(self, job: Job, root: Path = ROOT) -> Path:
        """Where the object of a job lies."""
        configuration = repr((self.version, self.command, self.flags, job.options))
        digest = hashlib.sha256(configuration.encode()).hexdigest()[:12]
        return root / "build/objects" / digest / job.folder / Path(job.source).with_suffix(".o")

    def link(self, objects: Sequence[Path], target: Path, options: Sequence[str] = ()) -> Path:
        """A shared library or (by options) program of these objects."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._run([*self.flags, *map(str, objects), *options, "-o", str(target)])
        return target

    def library(self, name: str) -> Path:
        """Where the compiler has a library of its own."""
        return Path(self._run([f"-print-file-name={name}"]).strip()).resolve()

    def _compile_one(self, job: Job, target: Path, root: Path) -> str:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part.o")
        options = [*self.flags, *job.options, "-MMD", "-MF", str(target.with_suffix(".d")), "-MT", "object"]
        output = self._run([*options, "-c", job.source, "-o", str(part)], root)
        part.replace(target)
        return output

    def _run(self, arguments: Sequence[str], root: Path = ROOT) -> str:
        result = subprocess.run([*self.command, *arguments], cwd=root, capture_output=True, text=True)
        if result.returncode:
            raise BuildError(f"{shlex.join([*self.command, *arguments])}\n{result.stdout}{result.stderr}")
        return result.stdout + result.stderr


def _up_to_date(target: Path, root: Path) -> bool:
    """An object newer than its source and every header that it included."""
    depfile = target.with_suffix(".d")
    if not (target.exists() and depfile.exists()):
        return False
    _, _, names = depfile.read_text().partition(":")
    built = target.stat().st_mtime
    inputs = [root / name for name in shlex.split(names.replace("\\\n", " "))]
    return all(path.exists() and path.stat().st_mtime < built for path in inputs)


def worker_count() -> int:
    """MAX_JOBS, or one compilation per processor and 2 GB of memory."""
    if jobs := os.environ.get("MAX_JOBS"):
        return max(1, int(jobs))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), memory // 2**31))


# ------------------------------------------------------------------------------------- what a machine must have


def missing(toolchain: Toolchain, venv: bool = False) -> dict[str, str]:
    """What keeps this machine from building, in words, by the key of PACKAGES that mends it. Empty if nothing."""
    problems = {}
    if venv and any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        problems["venv"] = f"{sys.executable} cannot make virtual environments (modules venv and ensurepip)"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        problems["headers"] = f"no Python.h in {sysconfig.get_path('include')}: the headers of Python are not installed"
    name = toolchain.command[0]
    try:
        if toolchain.version is None:
            problems["compiler"] = f"no C++ compiler: {name} is not found (CXX names another)"
        elif toolchain.gcc_major() < OLDEST_GCC:
            problems["compiler"] = f"{toolchain.version} is too old or not GCC: g++ >= {OLDEST_GCC} is needed"
        elif reason := _openmp_fails(toolchain):
            problems["openmp"] = f"{name} compiles no OpenMP program: {reason}"
    except BuildError as error:  # it is there, but does not even tell what it is
        problems["compiler"] = f"{name} does not work (CXX names another): {error}"
    return problems


def _openmp_fails(toolchain: Toolchain) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "openmp.cpp")
        source.write_text("#include <omp.h>\nint main() { return omp_get_num_threads() - 1; }\n")
        try:
            toolchain.link([source], Path(folder, "openmp"))
        except BuildError as error:
            return str(error)
    return None


def explain(problems: dict[str, str]) -> str:
    """What is missing and how to get it."""
    lines = ["pycv cannot be built here:", *(f"  - {text}" for text in problems.values()), "Install:"]
    commands = {"Debian/Ubuntu": "apt-get install", "Fedora": "dnf install"}
    for system, command in commands.items():
        names = " ".join(dict.fromkeys(PACKAGES[key][system] for key in problems))
        lines.append(f"  {system + ':':15}{command} {names}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks that this machine can build pycv.")
    parser.add_argument("--venv", action="store_true", help="also check that virtual environments can be made")
    problems = missing(Toolchain(), parser.parse_args().venv)
    if problems:
        print(explain(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
