"""What the build makes: objects that cannot mix instruction sets, a complete table, wheel and sdist, plain failures."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from pycv import _cpu
from tools import cuda, native

ROOT = Path(__file__).resolve().parent.parent
SETS = {isa.name: isa for isa in native.instruction_sets()}
KERNEL_JOBS = [job for job in native.kernel_jobs(native.instruction_sets()) if job.folder in SETS]


def run(*command, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def objects() -> dict[native.Job, Path]:
    """The objects that the extension was linked from (compiled here if they were thrown away)."""
    return dict(zip(KERNEL_JOBS, native.Toolchain().compile(KERNEL_JOBS, progress=False), strict=True))


def shared_symbols(path: Path) -> list[str]:
    """Symbols that the linker sees: global or weak definitions, demangled."""
    lines = run("nm", "-C", "--defined-only", "--extern-only", path).stdout.splitlines()
    return [line.split(maxsplit=2)[2] for line in lines]


@pytest.mark.parametrize("job", KERNEL_JOBS, ids=str)
def test_objects_share_nothing_outside_their_namespace(job, objects):
    """Of two weak definitions the linker keeps one for all: code of AVX-512 must not be offered under a common name."""
    own = f"pycv::cpu::{job.folder}::"
    harmless = ("DW.ref.__gxx_personality_v0",)  # a pointer, the same in every object
    leaked = [name for name in shared_symbols(objects[job]) if own not in name and name not in harmless]
    assert leaked == []


def test_shared_symbols_are_seen(tmp_path):
    """The test above can fail: an inline function outside the namespace is a weak symbol of its object."""
    source = tmp_path / "leak.cpp"
    source.write_text(
        "inline __attribute__((noinline)) int leak(int x) { return x + 1; }\nint user(int x) { return leak(x); }"
    )
    assert run("g++", "-c", source, "-o", tmp_path / "leak.o").returncode == 0
    assert "leak(int)" in shared_symbols(tmp_path / "leak.o")


SMALLEST = {
    "conv": "{op}.{pass_} n1c{c}{size} k{c}{filter} u{stride} p2 f32 nchw cpu",
    "gemm": "gemm.forward m2n2k2 f32 cpu",
    "pool": "{op}.{pass_} n1c1{size} {filter} f32 nchw cpu",
    "adaptive": "{op}.{pass_} n1c1{size} o1 f32 nchw cpu",
    "norm": "{op}.{pass_} n2c4h3w3 l3 f32 nchw cpu",
    "relu": "relu.{pass_} e5 f32 cpu",
}

PLAN_EVERYTHING = """
import sys
from pycv import _cpu
from pycv.kernels.cpu import KERNELS
from pycv.problem import parse
assert _cpu.isa() == sys.argv[1]
for kernel in KERNELS:
    rank = int(kernel.op[-2]) if kernel.op.endswith("d") and kernel.op[-2].isdigit() else 0
    size = "".join(f"{a}4" for a in "dhw"[3 - rank:]) if rank else ""
    filters = ["".join(f"{a}{extent}" for a in "trs"[3 - rank:]) if rank else "" for extent in (2, 1, 3, 5, 7)]
    family = next((f for f in ("adaptive", "pool", "conv", "gemm", "relu") if f in kernel.op), "norm")
    texts = [
        SMALLEST[family].format(op=kernel.op, pass_=kernel.pass_, size=size, filter=f, c=c, stride=u)
        for c in (4, 600) for u in (1, 2) for f in filters
    ]
    problem = next(problem for problem in map(parse, texts) if kernel.supports(problem) is None)
    assert kernel.plan(problem, 2, 1 << 20) is not None, problem
print(len(KERNELS))
"""


@pytest.mark.parametrize("isa", _cpu.compiled_isas())
def test_every_instruction_set_has_every_kernel(isa):
    """Whatever the registry lists can be planned under each instruction set that was compiled and can run here."""
    script = f"SMALLEST = {SMALLEST!r}\n{PLAN_EVERYTHING}"
    result = run(sys.executable, "-c", script, isa, PYCV_CPU_ISA=isa)
    if "this machine or this build has no" in result.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 20


def test_an_unknown_instruction_set_is_named():
    result = run(sys.executable, "-c", "from pycv import _cpu; _cpu.isa()", PYCV_CPU_ISA="avx9000")
    assert "PYCV_CPU_ISA=avx9000" in result.stderr and "baseline" in result.stderr


def test_the_extension_needs_no_torch():
    """One OpenMP runtime under its plain name, which torch's copy then answers; no libtorch, no libpython."""
    needed = [
        line.split("[")[1].rstrip("]")
        for line in run("readelf", "-d", _cpu.__file__).stdout.splitlines()
        if "NEEDED" in line
    ]
    assert "libgomp.so.1" in needed
    allowed = {"libgomp.so.1", "libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "libpthread.so.0"}
    assert {name for name in needed if not name.startswith("ld-linux")} <= allowed


def package_files() -> set[str]:
    """What belongs into a wheel, read off the source tree."""
    folders = {"pycv": ROOT / "pycv", "pycv/kernels": ROOT / "kernels"}
    return {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".so" and "__pycache__" not in path.parts
    }


def test_wheel_and_sdist_hold_the_package_and_nothing_else(tmp_path):
    """The objects of this build are used again, so that nothing is compiled here."""
    built = run(
        sys.executable, "-W", "ignore", "setup.py", "-q", "egg_info", "--egg-base", tmp_path,
        "build", "--build-base", tmp_path / "build", "bdist_wheel", "-d", tmp_path, "sdist", "-d", tmp_path,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    extensions = {name for name in names if name.endswith(".so")}
    expected = {"_cpu", "_cuda"} if cuda.wanted() and cuda.home() else {"_cpu"}
    assert {Path(name).name.split(".")[0] for name in extensions} == expected
    assert {name for name in names if not name.endswith(".so")} == package_files()
    assert "pycv/py.typed" in names and "pycv/kernels/reference/conv.py" in names
    assert any(name.endswith("LICENSE") for name in zipfile.ZipFile(wheel).namelist())

    with tarfile.open(sdist) as archive:
        shipped = {name.partition("/")[2] for name in archive.getnames()}
    native_files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "csrc").rglob("*") if p.is_file()}
    assert native_files <= shipped
    assert {
        "setup.py",
        "pyproject.toml",
        "constraints.txt",
        "LICENSE",
        "tools/native.py",
        "tools/cuda.py",
        "kernels/cpu.py",
    } <= shipped
    assert not any(name.endswith((".so", ".o", ".pyc")) for name in shipped)


def test_a_machine_without_compiler_is_told_what_to_install():
    for command in ([sys.executable, "tools/native.py"], [sys.executable, "-W", "ignore", "setup.py", "build_ext"]):
        result = run(*command, CXX="no-such-g++")
        assert result.returncode != 0
        assert "no-such-g++ is not found" in result.stderr
        assert "apt-get install g++" in result.stderr and "dnf install gcc-c++" in result.stderr


def test_a_compiler_without_openmp_is_told_what_to_install(tmp_path):
    """A compiler that fails on omp.h, and one that is too old."""
    fake = tmp_path / "g++"
    fake.write_text(
        "#!/bin/sh\ncase \"$*\" in\n*--version*) echo 'g++ 12.0';;\n*-dM*) echo '#define __GNUC__ 12';;\n"
        "*) echo 'fatal error: omp.h: No such file' >&2; exit 1;;\nesac\n"
    )
    fake.chmod(0o755)
    problems = native.missing(native.Toolchain(str(fake)))
    assert list(problems) == ["openmp"] and "omp.h" in problems["openmp"]
    fake.write_text(fake.read_text().replace("__GNUC__ 12", "__GNUC__ 9"))
    assert "g++ >= 11" in native.missing(native.Toolchain(str(fake)))["compiler"]


def test_a_compiler_that_does_not_work_is_told_what_to_install(tmp_path):
    """Half of an installation: the driver without the compiler behind it."""
    fake = tmp_path / "g++"
    fake.write_text("#!/bin/sh\necho 'g++: fatal error: cannot execute cc1plus' >&2\nexit 1\n")
    fake.chmod(0o755)
    result = run(sys.executable, "tools/native.py", CXX=str(fake))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "does not work" in result.stderr and "cannot execute cc1plus" in result.stderr
    assert "apt-get install g++" in result.stderr


def test_objects_follow_their_headers(tmp_path):
    """Incremental: what includes a changed header is compiled again, and nothing else."""
    (tmp_path / "a.h").write_text("int value();\n")
    (tmp_path / "a.cpp").write_text('#include "a.h"\nint value() { return 1; }\n')
    (tmp_path / "b.cpp").write_text("int other() { return 2; }\n")
    toolchain = native.Toolchain(flags=("-O0",))
    jobs = [native.Job("a.cpp", "x"), native.Job("b.cpp", "x")]
    first = toolchain.compile(jobs, tmp_path, progress=False)
    stamps = [path.stat().st_mtime_ns for path in first]
    os.utime(tmp_path / "a.h", (first[0].stat().st_mtime + 10,) * 2)
    assert toolchain.compile(jobs, tmp_path, progress=False) == first
    assert first[0].stat().st_mtime_ns > stamps[0]
    assert first[1].stat().st_mtime_ns == stamps[1]
