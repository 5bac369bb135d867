"""The wrappers of csrc/cuda/device and transpose, in a program of their own: the files *_cases.cu of this folder.

The host compiler makes it for host execution; with PYCV_TEST_DEVICE=cuda it is nvcc's, and runs on the GPU.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tools import cuda, native, simt

from ..backend import BY_HOST

CUDA = native.ROOT / "csrc/cuda"
CASES = sorted(Path(__file__).parent.glob("*_cases.cu"))
NAMES = [name for path in CASES for name in re.findall(r"^CASE\((\w+)\)", path.read_text(), re.MULTILINE)]
ORDERS = ("forward", "reverse") if BY_HOST else ("the device's",)


def program_of_host() -> Path:
    sources = ["csrc/cuda/transpose.cu", *(path.relative_to(native.ROOT).as_posix() for path in CASES)]
    return simt.make(native.ROOT / "build/simt/cases", native.simt_jobs([*sources, "tests/simt/main.cpp"]), ())


def program_of_device() -> Path:
    """For the GPUs in sight, or the architectures that setup.py compiles for."""
    home = cuda.home()
    assert home is not None, f"no nvcc: {cuda.INSTALL}"
    nvcc, host = cuda.Nvcc(home, cuda.architectures()), native.Toolchain(flags=cuda.HOST_FLAGS)
    sources = ["csrc/cuda/transpose.cu", *(path.relative_to(native.ROOT).as_posix() for path in CASES)]
    jobs = [native.Job(source, "cuda", ("-Icsrc/cuda",)) for source in sources]
    jobs.append(native.Job("tests/simt/main.cpp", "cuda", ("-Icsrc/cuda", "-x", "cu")))
    objects = nvcc.compile(jobs, progress=False)
    return host.link(objects, native.ROOT / "build/cuda/cases", nvcc.libraries)


@pytest.fixture(scope="module")
def program() -> Path:
    return program_of_host() if BY_HOST else program_of_device()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NAMES)
def test_case(name, order, program):
    environment = os.environ | ({"PYCV_SIMT_ORDER": order} if BY_HOST else {})
    result = subprocess.run([program, name], capture_output=True, text=True, env=environment)
    assert result.stdout == f"{name}: ok\n", result.stdout + result.stderr


# The innermost function whose head stands before an asm, and its name.
HEAD = re.compile(r"^[^\n/]*__device__[^;={}]*?\b(\w+)\([^;{}]*\{", re.MULTILINE)
REACHED_BY = {"run": "multiply_async"}  # a member for each shape of the product


def code(path: Path) -> str:
    """The text of a source without comments."""
    return re.sub(r"//[^\n]*", "", path.read_text())


def wrappers(text: str) -> list[str]:
    """The functions that hold PTX."""
    ends = [found.start() for found in re.finditer(r"\basm\b", text)]
    return [list(HEAD.finditer(text, 0, end))[-1][1] for end in ends]


def test_every_wrapper_of_ptx_has_a_case():
    cases = "".join(code(path) for path in CASES)
    names = {name for path in sorted((CUDA / "device").glob("*.h")) for name in wrappers(code(path))}
    assert len(names) > 20, f"of the wrappers only {sorted(names)} are seen"
    assert [name for name in sorted(names) if not re.search(rf"\b{REACHED_BY.get(name, name)}\b[<(]", cases)] == []


def test_ptx_stands_in_wrappers_alone():
    sources = [path for path in CUDA.rglob("*.*") if path.parent.name != "device"]
    assert len(sources) > 50
    assert [path.name for path in sources if re.search(r"\basm\b", code(path))] == []


@pytest.mark.full  # nvcc; CI runs it with the kernels
def test_compiles_for_a_device(monkeypatch):
    if cuda.home() is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI is to compile these cases, but there is no nvcc: {cuda.INSTALL}")
        pytest.skip("no nvcc here")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0")
    listed = subprocess.run([program_of_device()], capture_output=True, text=True)
    assert listed.stdout.split() == NAMES, listed.stderr
