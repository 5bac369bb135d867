"""``pycv.info()``: what was built, what was found on this machine, and what to do about what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

from . import registry
from .choice import cache as tuned_choices
from .choice import model, verified
from .choice.device import cores, cpu_model
from .kernels import cuda
from .kernels import numba as numba_kernels

BUILD_HINT = (
    "In a checkout: python setup.py build_ext --inplace (needs g++ >= 11 and the Python headers; Debian and Ubuntu: "
    "apt install g++ python3-dev). Installed: pip install --force-reinstall --no-deps pycv."
)


CUDA_HINT = (
    "With nvcc installed (or named by CUDA_HOME), in a checkout: FORCE_CUDA=1 python setup.py build_ext --inplace; "
    "TORCH_CUDA_ARCH_LIST names other architectures than this GPU's."
)


@dataclass(frozen=True, repr=False)
class Info:
    """The answer of :func:`info`; ``str(...)`` is the report that ``pycv info`` prints.

    Attributes
    ----------
    version, commit : of pycv; ``commit`` is None outside a git checkout and ends in ``+`` where files were changed.
    python, torch, platform : versions, as text.
    cpu, cores : the CPU's name; the number of cores that this process may use.
    threads : how many threads the kernels use: ``torch.get_num_threads()``.
    isas, isa : instruction sets that were compiled, best last; the one in use. Empty and None if nothing runs.
    compiler : what compiled the kernels.
    openmp : paths of the OpenMP runtimes in this process; None where the system does not tell.
    kernels : number of registered kernels by backend.
    cost_model : where the constants come from by which kernels are chosen.
    tuned : number of problems for which the choice was measured on this machine.
    found : for each optional tool its version, or None.
    numba : what Numba has compiled on this machine so far, how long it took and where it lies; or why it runs nothing.
    cuda : architectures that the CUDA kernels were compiled for, with the version of CUDA; or why they are not there.
    verified : GPUs on which pycv's GPU kernels have been verified.
    problems : what is wrong or missing, each with what to do about it.
    """

    version: str
    commit: str | None
    python: str
    torch: str
    platform: str
    cpu: str
    cores: int
    threads: int
    isas: tuple[str, ...]
    isa: str | None
    compiler: str | None
    openmp: tuple[str, ...] | None
    kernels: dict[str, int]
    cost_model: str
    tuned: int
    found: dict[str, str | None]
    numba: str
    cuda: str
    verified: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        openmp = "unknown on this system" if self.openmp is None else ", ".join(self.openmp) or "none mapped"
        lines = [
            ("pycv", self.version + (f" ({self.commit})" if self.commit else "")),
            ("Python", self.python),
            ("torch", self.torch),
            ("platform", self.platform),
            ("CPU", f"{self.cpu}, {self.cores} cores, {self.threads} threads"),
            ("built for", ", ".join(self.isas) + (f" ({self.compiler})" if self.compiler else "") or "nothing"),
            ("in use", self.isa or f"none: {_stand_in()}"),
            ("OpenMP", openmp),
            ("kernels", ", ".join(f"{count} {backend}" for backend, count in self.kernels.items())),
            ("choice", f"cost model {self.cost_model}; {self.tuned} problems tuned"),
            *((name, version or "not found") for name, version in self.found.items()),
            ("Numba kernels", self.numba),
            ("CUDA kernels", self.cuda),
            ("GPU kernels", "verified on " + ", ".join(self.verified) if self.verified else _gpu_state(self.kernels)),
        ]
        width = max(len(name) for name, _ in lines)
        text = [f"{name:<{width}}  {value}" for name, value in lines]
        return "\n".join(text + [f"! {problem}" for problem in self.problems])

    __repr__ = __str__


def info() -> Info:
    """Looks at this installation, machine and process. Never raises: what fails is reported in ``problems``."""
    isas, isa, compiler, build_problem = _build()
    openmp = _openmp_runtimes()
    problems = [build_problem] if build_problem else []
    if build_problem:
        problems[0] += f" Until then {_stand_in()}."
    if openmp and len(openmp) > 1:
        problems.append(
            f"{len(openmp)} OpenMP runtimes in one process fight over the cores and give wrong thread counts; import "
            "torch before anything else that brings one, or install torch and that package from one source."
        )
    kernels = _kernel_counts()
    cost_model = model.current()
    if isa and not cost_model.measured:
        problems.append("This device class was never measured, so that torch runs everything: pycv tune machine.")
    found = _found()
    of_use = {"numba": not isa, "triton": bool(found["GPU"])}
    needed = {backend: count for backend, count in kernels.items() if of_use.get(backend, True)}
    problems += _missing_tools(needed, found)
    if found["GPU"] and (reason := cuda.unusable()):
        problems.append(f"There is a GPU, but torch runs everything on it: {reason}. {CUDA_HINT}")
    return Info(
        version=_version(),
        commit=commit(),
        python=platform.python_version(),
        torch=torch.__version__,
        platform=platform.platform(),
        cpu=cpu_model(),
        cores=cores(),
        threads=torch.get_num_threads(),
        isas=isas,
        isa=isa,
        compiler=compiler,
        openmp=openmp,
        kernels=kernels,
        cost_model=cost_model.name,
        tuned=len(tuned_choices.entries()),
        found=found,
        numba=numba_kernels.state(),
        cuda=_cuda_build(nvcc=bool(found["nvcc"] and not found["GPU"])),
        verified=tuple(sorted({verification.device for verification in verified.records()})),
        problems=tuple(problems),
    )


def _version() -> str:
    from . import __version__

    return __version__


def _build() -> tuple[tuple[str, ...], str | None, str | None, str | None]:
    """Instruction sets compiled, the one in use, the compiler, and what is wrong."""
    try:
        from . import _cpu
    except ImportError as error:
        return (), None, None, f"The C++ kernels cannot be loaded: {error}. {BUILD_HINT}"
    isas, compiler = tuple(_cpu.compiled_isas()), _cpu.compiler
    try:
        return isas, _cpu.isa(), compiler, None
    except RuntimeError as error:
        return isas, None, compiler, f"{error}. Unset PYCV_CPU_ISA, or name one of {', '.join(isas)} that this CPU has."


def _stand_in() -> str:
    """What runs where the C++ kernels do not."""
    return "the Numba kernels stand in" if registry.own_backend() == "numba" else "torch runs everything"


def _openmp_runtimes() -> tuple[str, ...] | None:
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    return tuple(sorted(set(re.findall(r"/\S*/lib(?:g|i|)omp[\w.-]*\.so[\w.]*", maps))))


def _kernel_counts() -> dict[str, int]:
    """Registered kernels by backend, torch (which is always there) left out."""
    counts: dict[str, int] = {}
    for kernel in registry.kernels():
        if kernel.backend != "torch":
            counts[kernel.backend] = counts.get(kernel.backend, 0) + 1
    return counts


def _found() -> dict[str, str | None]:
    gpu = None
    try:
        if torch.cuda.is_available():
            gpu = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    except RuntimeError as error:  # a driver that is there but broken
        gpu = f"not usable ({error})"
    return {"GPU": gpu, "nvcc": _nvcc(), "Triton": _installed("triton"), "Numba": _installed("numba")}


def _nvcc() -> str | None:
    """Where the build looks for it (tools/cuda.py): one on PATH comes last."""
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    found = (shutil.which("nvcc", path=os.path.join(home, "bin")) for home in homes if home)
    return next(filter(None, found), None) or shutil.which("nvcc")


def _installed(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "found"


_TOOLS = {"triton": ("Triton", "pip install triton"), "numba": ("Numba", "pip install numba")}


def _missing_tools(kernels: dict[str, int], found: dict[str, str | None]) -> list[str]:
    """Backends that have kernels but lack what runs them."""
    return [
        f"The {backend} kernels need {tool}, which was not found: {remedy}."
        for backend, (tool, remedy) in _TOOLS.items()
        if backend in kernels and found[tool] is None
    ]


def _cuda_build(nvcc: bool) -> str:
    if cuda._cuda is None:
        return f"not built ({cuda.missing})" + (f". No GPU is in sight here. {CUDA_HINT}" if nvcc else "")
    major, minor = divmod(cuda._cuda.runtime_version, 1000)
    return f"{cuda._cuda.architectures} (CUDA {major}.{minor // 10})"


def _gpu_state(kernels: dict[str, int]) -> str:
    if "cuda" in kernels or "triton" in kernels:
        return "not verified on any device yet: on a GPU the default is torch"
    return "none in this version: on a GPU torch runs everything"


# ---------------------------------------------------------------------------------------- facts about the machine


@cache
def commit() -> str | None:
    """The git commit of the checkout that pycv runs from, with ``+`` if files were changed; None outside one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
