"""Compiles csrc/cuda with nvcc: what setup.py and the tests of the compiled kernels share. Standard library only.

Every kernel file is compiled for all architectures at once, in parallel and incrementally (tools/native.py). The
module pycv._cuda links cudart statically and torch not at all.

Environment: FORCE_CUDA=1 builds without a GPU in sight (0: never builds), CUDA_HOME or CUDA_PATH name the toolkit,
TORCH_CUDA_ARCH_LIST the architectures (``8.0+PTX;9.0a``; default: those of the GPUs here), NVCC_FLAGS adds flags.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from . import native

FLAGS = ("-std=c++20", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall", "-Xptxas=-v")
HOST_FLAGS = tuple(flag for flag in native.FLAGS if flag != "-fopenmp")
DEFAULT_ARCHITECTURES = "7.5;8.0+PTX;9.0a"
INSTALL = "install the CUDA toolkit (12.8 or newer), or let CUDA_HOME name it"


class Nvcc(native.Toolchain):
    """nvcc for some architectures, with the host compiler that compiles the rest of pycv."""

    def __init__(self, home: Path, architectures: str, flags: Sequence[str] = ()):
        host = native.Toolchain().command[-1]
        self.home = home
        self.command = [str(home / "bin/nvcc")]
        extra = shlex.split(os.environ.get("NVCC_FLAGS", ""))
        self.flags = (*FLAGS, f"-ccbin={host}", *gencodes(architectures), *flags, *extra)

    @cached_property
    def version(self) -> str | None:
        release = re.search(r"release.*", self._run(["--version"]))
        return f"nvcc, {release[0]}" if release else "nvcc"

    def _compile_one(self, job: native.Job, target: Path, root: Path) -> str:
        """What ptxas says about registers goes into a file beside the object; only warnings are left."""
        output = super()._compile_one(job, target, root)
        report_of(target).write_text(output)
        return "\n".join(line for line in output.splitlines() if "warning" in line)

    @property
    def libraries(self) -> list[str]:
        """What the linker needs."""
        folders = ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib")
        found = [self.home / name for name in folders if (self.home / name / "libcudart_static.a").exists()]
        return [*(f"-L{folder}" for folder in found[:1]), "-lcudart_static", "-ldl", "-lrt", "-lpthread"]


def report_of(target: Path) -> Path:
    """Where what ptxas said about the kernels of an object is kept."""
    return target.with_suffix(".ptxas")


def home() -> Path | None:
    """The folder of the CUDA toolkit, None where there is none.

    An nvcc on PATH comes last: it may be a script that calls another one, and then says nothing about the folder.
    """
    named = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    on_path = shutil.which("nvcc")
    beside = Path(on_path).resolve().parent.parent if on_path else None
    for folder in (*(Path(name) for name in named if name), Path("/usr/local/cuda"), beside):
        if folder is not None and (folder / "bin/nvcc").exists() and (folder / "include/cuda_runtime.h").exists():
            return folder
    return None


def cuobjdump() -> Path | None:
    """What prints the machine code of an object: of the toolkit, or of the triton package. None where neither is."""
    folder = home()
    places = [folder / "bin"] if folder is not None else []
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        places.append(Path(triton.origin).parent / "backends/nvidia/bin")
    return next((place / "cuobjdump" for place in places if (place / "cuobjdump").exists()), None)


def gpus() -> list[str]:
    """The capabilities ("9.0") of the GPUs in sight; unknown ones are left out."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return sorted(set(re.findall(r"^\d+\.\d+$", result.stdout, re.MULTILINE))) if result.returncode == 0 else []


def forced() -> bool:
    """Whether not being able to build the CUDA kernels is an error."""
    return os.environ.get("FORCE_CUDA") == "1"


def wanted() -> bool:
    """Whether an installation here is to have the CUDA kernels, if it can."""
    return forced() or (os.environ.get("FORCE_CUDA") != "0" and bool(gpus()))


def architectures() -> str:
    """Those to compile for, as TORCH_CUDA_ARCH_LIST names them, joined by semicolons.

    Of the GPUs in sight, 9.0 stands for 9.0a: the instructions that only it has need the "a".
    """
    given = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if given:
        return ";".join(re.split(r"[;,\s]+", given.strip()))
    return ";".join("9.0a" if gpu == "9.0" else gpu for gpu in gpus()) or DEFAULT_ARCHITECTURES


def gencodes(architectures: str) -> list[str]:
    """nvcc's options for ``7.5;8.0+PTX;9.0a``. Raises ValueError naming what is no architecture."""
    options = []
    for text in architectures.split(";"):
        match = re.match(r"(\d+)\.(\d)([af]?)(\+PTX)?$", text)
        if match is None:
            raise ValueError(f"architecture {text!r}: expected such as 8.0, 8.0+PTX or 9.0a (TORCH_CUDA_ARCH_LIST)")
        if match[3] and match[4]:
            raise ValueError(f"architecture {text!r}: PTX of it would run on no newer GPU; add that of a plain one")
        number = match[1] + match[2] + match[3]
        options.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if match[4]:
            options.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return options


def kernel_jobs(root: Path = native.ROOT) -> list[native.Job]:
    """Every kernel file."""
    sources = sorted(path.relative_to(root).as_posix() for path in (root / "csrc/cuda").glob("*.cu"))
    return [native.Job(source, "cuda", ("-Icsrc/cuda",)) for source in sources]


def build(target: Path) -> None:
    """Compiles and links pycv._cuda. Raises native.BuildError; ValueError where the architectures make no sense."""
    folder = home()
    if folder is None:
        raise native.BuildError(f"no nvcc in $CUDA_HOME, $CUDA_PATH, /usr/local/cuda or on PATH: {INSTALL}")
    names = architectures()
    nvcc = Nvcc(folder, names)
    link(target, nvcc, names, nvcc.compile(kernel_jobs()))


def link(target: Path, nvcc: Nvcc, names: str, kernels: Sequence[Path]) -> None:
    """pycv._cuda from the objects of the kernels; ``names`` are the architectures that it will say it has."""
    import pybind11

    host = native.Toolchain(flags=HOST_FLAGS)
    includes = tuple(
        f"-I{path}" for path in (sysconfig.get_path("include"), pybind11.get_include(), nvcc.home / "include")
    )
    macro = f'-DPYCV_CUDA_ARCHITECTURES="{names}"'
    bindings = native.Job("csrc/bindings/cuda.cpp", sysconfig.get_config_var("SOABI"), (*includes, macro, "-O1"))
    host.link([*host.compile([bindings]), *kernels], target, ["-shared", *nvcc.libraries])
