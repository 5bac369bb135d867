"""What nvcc makes of csrc/cuda: it compiles for every architecture, tuned kernels spill nothing, the module loads.

With PYCV_DRAWN=1, as in CI, every file is compiled for one of the architectures, drawn by the seed; those for tensor
cores for one that has them. That is of the code for the device alone, half the time: host execution compiles the rest.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import cuda, native

from ..seed import SEED

JOBS = cuda.kernel_jobs()
# The kernels that they launch are in a file of each arithmetic.
PLANS_ONLY = {"gemm_mma_sync.cu", "gemm_wgmma_3_persistent.cu", "conv_wgmma.cu"}


DRAWN = os.environ.get("PYCV_DRAWN") == "1"


def tuned(job: native.Job) -> bool:
    """A file says "Tuned:" in its header comment if none of its kernels may spill registers."""
    return re.search(r"^// .*Tuned:", (native.ROOT / job.source).read_text(), re.MULTILINE) is not None


def architectures(job: native.Job) -> list[str]:
    """Those that the tests compile a file for."""
    every = cuda.DEFAULT_ARCHITECTURES.split(";")
    if not DRAWN:
        return every
    first = 2 if "_wgmma" in job.source else 1 if "_mma" in job.source else 0
    return [random.Random(f"{SEED}.{job.source}").choice(every[first:]).removesuffix("+PTX")]


def nvcc_for(job: native.Job) -> cuda.Nvcc:
    home = cuda.home()
    if home is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI is to compile the CUDA kernels, but there is no nvcc: {cuda.INSTALL}")
        pytest.skip("no nvcc here")
    return cuda.Nvcc(home, ";".join(architectures(job)), ("-cubin",) if DRAWN else ())


def compiled(job: native.Job) -> Path:
    (target,) = nvcc_for(job).compile([job], progress=False)
    return target


def machine(architecture: str) -> str:
    """``sm_80`` of ``8.0+PTX``."""
    return "sm_" + architecture.removesuffix("+PTX").replace(".", "")


def kernels(report: str) -> list[tuple[str, str, int]]:
    """Name, architecture and spilled bytes of every kernel that ptxas reports on."""
    entries = re.split(r"Compiling entry function ", report)[1:]
    found = []
    for entry in entries:
        name, architecture = re.match(r"'(\S+)' for '(\w+)'", entry).groups()
        spilled = re.findall(r"(\d+) bytes spill", entry)
        assert spilled, f"ptxas says nothing about spills of {name}: has its wording changed?"
        found.append((name, architecture, max(map(int, spilled))))
    return found


@pytest.mark.full  # minutes; CI runs it as a stage of its own
@pytest.mark.parametrize("job", JOBS, ids=lambda job: Path(job.source).name)
def test_compiles_everywhere_and_tuned_kernels_spill_nothing(job):
    found = kernels(cuda.report_of(compiled(job)).read_text())
    expected = set() if Path(job.source).name in PLANS_ONLY else set(map(machine, architectures(job)))
    assert {architecture for _, architecture, _ in found} == expected
    if tuned(job):
        assert [entry for entry in found if entry[2]] == []


def machine_code(job: native.Job, architecture: str) -> list[str]:
    """Of each kernel of a file, by cuobjdump; its name comes first."""
    cuobjdump = cuda.cuobjdump()
    if cuobjdump is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI is to look at the machine code, but there is no cuobjdump, neither nvcc's nor triton's")
        pytest.skip("no cuobjdump, neither of the toolkit nor of triton")
    command = [cuobjdump, "-sass", "-arch", architecture, compiled(job)]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.split(r"\n\s*Function : ", code)[1:]


@pytest.mark.full
@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_rows_are_pooled_by_vectors(op):
    (job,) = (job for job in JOBS if job.source == f"csrc/cuda/{op}.cu")
    functions = machine_code(job, machine(architectures(job)[-1]))
    by_rows = [code for code in functions if f"{op}_rows_" in code.split(maxsplit=1)[0]]
    assert by_rows
    for code in by_rows:
        assert re.search(r"LDG\S*\.128", code) and re.search(r"STG\S*\.128", code)


MMA_JOBS = [job for job in JOBS if re.search(r"_mma_\w*(f16|f32)\.cu$", job.source)]


@pytest.mark.full
@pytest.mark.parametrize(
    ("job", "architecture"),
    [(job, machine(a)) for job in MMA_JOBS for a in architectures(job) if a != "7.5"],
    ids=lambda each: each if isinstance(each, str) else Path(each.source).name,
)
def test_products_are_those_of_tensor_cores(job, architecture):
    """In the machine code: products (HMMA), matrices (LDSM) and asynchronous copies of 16 bytes (LDGSTS)."""
    product = "HMMA.1688.F32.TF32" if "tf32" in job.source else "HMMA.16816.F32"
    functions = machine_code(job, architecture)
    for function in functions:
        if "add_parts" not in function.split(maxsplit=1)[0]:
            assert product in function and re.search(r"LDGSTS\S*\.128", function)
    assert any("LDSM" in function for function in functions)


WGMMA_JOBS = [job for job in JOBS if "_wgmma" in job.source and Path(job.source).name not in PLANS_ONLY]


@pytest.mark.full
@pytest.mark.parametrize(
    "job", [job for job in WGMMA_JOBS if "9.0a" in architectures(job)], ids=lambda job: Path(job.source).name
)
def test_hopper_multiplies_and_copies_on_its_own(job):
    """In the machine code: products of warp groups (HGMMA), loads of boxes (UTMALDG) and, where results leave as boxes,
    stores (UTMASTG). What is gathered comes by many loads at a time and is written by whole vectors, before a fence.
    ptxas tells where it has products wait for each other that could go on together."""
    functions = {f.split(maxsplit=1)[0]: f for f in machine_code(job, "sm_90a")}
    multiplying = {name: code for name, code in functions.items() if "add_filter_sums" not in name}
    assert multiplying
    for name, code in multiplying.items():
        assert "HGMMA.64x" in code
        if "gathered" in name:
            producer = code[code.index("USETMAXREG.DEALLOC") :]
            assert "STS.128" in producer and "FENCE.VIEW.ASYNC" in producer
            moves = "".join(word[0] for word in re.findall(r"\b(?:LDG|STS)\b", producer))
            assert max(map(len, moves.split("S"))) >= 32
        if "grad_weight_gathered" not in name:
            assert "UTMALDG" in code
            assert "conv_wgmma" not in name or re.search(r"UTMALDG\S*IM2COL", code)
        assert "phases" not in name or re.search(r"UTMASTG\S*IM2COL", code)
        if "conv_wgmma" in name or "gemm_wgmma_3" in name:
            assert "UTMASTG" in code and ("Tf32" in name or "grad_weight" in name or "STSM" in code)
    assert "serialized" not in cuda.report_of(compiled(job)).read_text()


def test_some_file_is_tuned():
    assert any(map(tuned, JOBS))


def test_what_is_drawn_of_the_architectures(monkeypatch):
    """One of those for which the file holds more than a trap; what the README says of them is made of the same."""
    monkeypatch.setattr(sys.modules[__name__], "DRAWN", True)
    every = [name.removesuffix("+PTX") for name in cuda.DEFAULT_ARCHITECTURES.split(";")]
    for job in JOBS:
        (drawn,) = architectures(job)
        assert drawn in (every[2:] if "_wgmma" in job.source else every[1:] if "_mma" in job.source else every)


def test_spills_are_seen():
    report = (
        "ptxas info : Compiling entry function 'k' for 'sm_80'\n 16 bytes stack frame, 8 bytes spill stores, 12 bytes"
    )
    assert kernels(report + " spill loads\n") == [("k", "sm_80", 12)]


NEW_MODULE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("pycv._cuda", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.architectures, len(module.kernels()))
print(module.device_count(), module.device_error())
"""


@pytest.mark.full
@pytest.mark.skipif(DRAWN, reason="PYCV_DRAWN=1 compiles no code for the host")
def test_the_module_loads_without_a_driver(tmp_path):
    target = tmp_path / "_cuda.so"
    cuda.link(target, nvcc_for(JOBS[0]), cuda.DEFAULT_ARCHITECTURES, [compiled(job) for job in JOBS])
    needed = subprocess.run(["readelf", "-d", target], capture_output=True, text=True).stdout
    assert "libcudart" not in needed and "libtorch" not in needed and "libcuda.so" not in needed
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", NEW_MODULE, target]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    first, second = result.stdout.splitlines()
    assert first.split()[0] == cuda.DEFAULT_ARCHITECTURES and int(first.split()[1]) > 0, result.stderr
    count, _, reason = second.partition(" ")
    assert count == "0" and reason


def test_architectures_in_words():
    assert cuda.gencodes("8.0+PTX;9.0a") == [
        "-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_80,code=compute_80",
        "-gencode=arch=compute_90a,code=sm_90a",
    ]  # fmt: skip
    for bad, message in (("9.0a+PTX", "PTX of it would run on no newer GPU"), ("Hopper", "expected such as 8.0")):
        with pytest.raises(ValueError, match=message):
            cuda.gencodes(bad)


def test_which_toolkit_and_architectures(tmp_path, monkeypatch):
    for name in ("CUDA_HOME", "CUDA_PATH", "TORCH_CUDA_ARCH_LIST", "FORCE_CUDA"):
        monkeypatch.delenv(name, raising=False)
    for file in ("bin/nvcc", "include/cuda_runtime.h"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    monkeypatch.setenv("CUDA_PATH", str(tmp_path))
    assert cuda.home() == tmp_path
    monkeypatch.setattr(cuda, "gpus", lambda: ["8.6", "9.0"])
    assert cuda.wanted() and not cuda.forced() and cuda.architectures() == "8.6;9.0a"
    monkeypatch.setenv("FORCE_CUDA", "0")
    assert not cuda.wanted()
    monkeypatch.setattr(cuda, "gpus", lambda: [])
    monkeypatch.setenv("FORCE_CUDA", "1")
    assert cuda.wanted() and cuda.forced() and cuda.architectures() == cuda.DEFAULT_ARCHITECTURES
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0+PTX 9.0a")
    assert cuda.architectures() == "8.0+PTX;9.0a"
