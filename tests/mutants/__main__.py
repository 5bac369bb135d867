"""Breaks the kernels in small ways, one at a time, and expects the tests to notice.

    python -m tests.mutants               all of them
    python -m tests.mutants -k gemm       those whose file or edit contains a word
    python -m tests.mutants --drawn       a few of them, drawn by the seed of the tests

Each mutant is applied in a copy of the tree, what includes it is compiled again for one instruction set, and the test
that the mutant names runs: the native self-test, a target of pytest, or one after the word ``races``, as python -m
tests.simt runs it. A mutant that no test notices survives, and the exit status is 1; so it is where an edit no longer
applies, or the tests are red without any.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11

from tools import native, simt

from ..seed import SEED
from .mutants import MUTANTS, SELFTEST, Mutant

FLAGS = (*native.FLAGS, "-O1", "-w")  # compile time is most of the time here
VARIANTS = "12"  # per problem of the self-test, which ends with its first failure
DRAWN = 95  # one in so many
TIMEOUT = 240  # seconds; a mutant that makes a kernel hang is noticed too
PYTEST = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
COPIED = ("csrc", "kernels", "pycv", "tests", "tools", "pyproject.toml")


def instruction_set() -> native.InstructionSet:
    """AVX2 where the processor has it: full vectors, several per tile, quick to compile."""
    sets = {isa.name: isa for isa in native.runnable()}
    return sets.get("avx2", native.BASELINE)


class Workshop:
    """A tree with its objects, to be copied for each mutant."""

    def __init__(self, root: Path, targets: set[str]):
        self.root = root
        self.isa = instruction_set()
        self.toolchain = native.Toolchain(flags=FLAGS)
        includes = (f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}")
        self.bindings = native.Job("csrc/bindings/cpu.cpp", "bindings", includes)
        self.selftest = native.Job("tests/native/selftest.cpp", "selftest")
        for name in COPIED:
            copy_tree(native.ROOT / name, root / name)
        (root / "pycv/kernels").symlink_to("../kernels")
        objects = native.ROOT / "build/mutants"
        builds = {build_on_host(target) for target in targets if is_on_host(target)}
        if objects.exists():
            copy_tree(objects, root / "build/objects")
        else:
            for how in builds:
                copy_objects(simt.jobs(how=how), root)  # the tests have compiled them with the same flags
        if not all(is_on_host(target) or is_python(target) for target in targets):
            self.toolchain.compile([self.selftest, self.bindings, *native.kernel_jobs([self.isa])], root)
        for how in builds:
            simt.build(root, how=how)
        shutil.rmtree(objects, ignore_errors=True)
        copy_tree(root / "build/objects", objects)

    def is_red(self, tree: Path, target: str) -> tuple[bool, str]:
        """Builds what the target needs in a tree and runs it: whether it failed, and the line that says how."""
        if is_on_host(target):
            return self.is_red_on_host(tree, target)
        if is_python(target):
            return self.fails([*PYTEST, *shlex.split(target)], tree)
        host = self.selftest if target == SELFTEST else self.bindings
        try:
            objects = self.toolchain.compile([host, *native.kernel_jobs([self.isa])], tree, progress=False)
        except native.BuildError as error:
            sys.exit(f"a mutant must compile: {error}")
        if target == SELFTEST:
            command = [str(self.toolchain.link(objects, tree / "build/selftest")), VARIANTS, "1"]
        else:
            suffix = sysconfig.get_config_var("EXT_SUFFIX")
            self.toolchain.link(objects, tree / f"pycv/_cpu{suffix}", ["-shared"])
            command = [*PYTEST, *shlex.split(target)]
        return self.fails(command, tree)

    def is_red_on_host(self, tree: Path, target: str) -> tuple[bool, str]:
        """The same for a test of CUDA kernels, which needs them for host execution only."""
        try:
            simt.build(tree, progress=False, how=build_on_host(target))
        except native.BuildError as error:
            sys.exit(f"a mutant must compile: {error}")
        check = [sys.executable, "-m", "tests.simt"] if is_race_check(target) else PYTEST
        return self.fails([*check, *shlex.split(target)], tree)

    def fails(self, command: list[str], tree: Path) -> tuple[bool, str]:
        environment = {**os.environ, "PYCV_CPU_ISA": self.isa.name, "OMP_WAIT_POLICY": "passive"}
        try:
            result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return True, f"no end within {TIMEOUT} s"
        return result.returncode != 0, telling_line(result.stdout + result.stderr)

    def try_mutant(self, mutant: Mutant, number: int) -> tuple[bool, str]:
        with tempfile.TemporaryDirectory(dir=self.root.parent) as folder:
            tree = Path(folder, f"mutant{number}")
            copy_tree(self.root, tree)
            path = tree / mutant.file
            source = path.read_text()
            if source.count(mutant.original) != 1:
                return False, f"the edit applies {source.count(mutant.original)} times, not once"
            path.write_text(source.replace(mutant.original, mutant.replacement))
            return self.is_red(tree, mutant.test)


def is_on_host(target: str) -> bool:
    """Whether a test runs CUDA kernels by host execution, and needs nothing else compiled."""
    return target.startswith(("tests/cuda", "tests/simt")) or is_race_check(target)


def is_race_check(target: str) -> bool:
    """Whether a test of CUDA kernels runs under ThreadSanitizer."""
    return target.startswith("races ")


def build_on_host(target: str) -> native.SimtBuild:
    """How the CUDA kernels are compiled for a test of them."""
    return native.SIMT_RACES if is_race_check(target) else native.SIMT_PLAIN


def is_python(target: str) -> bool:
    """Whether a test runs kernels in Python only: nothing is compiled here, and the extension is not there."""
    return target.startswith(("tests/numba", "tests/triton"))


def copy_tree(source: Path, target: Path) -> None:
    """With times, so that objects stay newer than their sources."""
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(source, target, symlinks=True, ignore=ignored)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def copy_objects(jobs: list[native.Job], root: Path) -> None:
    """Those that the checkout has, one folder for each set of options."""
    objects = native.ROOT / "build/objects"
    paths = [native.Toolchain().object_path(job).relative_to(objects) for job in jobs]
    for folder in {path.parts[0] for path in paths}:
        if (objects / folder).exists():
            copy_tree(objects / folder, root / "build/objects" / folder)


def telling_line(output: str) -> str:
    words = ("SUMMARY", "FAILED", "while running", "ERROR", "terminate", "Error")
    lines = [line for line in output.splitlines() if any(word in line for word in words)]
    return (lines or ["crashed"])[0].strip()[:150]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("-k", default="", help="only the mutants whose file, edit or test contains this")
    parser.add_argument("--drawn", action="store_true", help="a few of them, drawn by PYCV_SEED or the commit")
    options = parser.parse_args()
    word = options.k
    chosen = [m for m in MUTANTS if word in f"{m.file} {m.original} {m.replacement} {m.test}"]
    if options.drawn:
        print(f"seed {SEED}: one mutant in {DRAWN}", flush=True)
        chosen = chosen[SEED % DRAWN :: DRAWN]
    started = time.monotonic()
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        targets = {mutant.test for mutant in chosen}
        workshop = Workshop(Path(folder, "original"), targets)
        for target in sorted(targets):
            red, line = workshop.is_red(workshop.root, target)
            if red:
                sys.exit(f"{target} is red without any mutant: {line}")
        print(f"{len(chosen)} mutants, {workshop.isa.name}; all tests green without them", flush=True)
        with ThreadPoolExecutor(native.worker_count()) as pool:
            results = pool.map(workshop.try_mutant, chosen, range(len(chosen)))
            for number, (mutant, (red, line)) in enumerate(zip(chosen, results, strict=True), 1):
                if not red:
                    survivors.append(mutant)
                print(f"[{number}/{len(chosen)}] {'red     ' if red else 'SURVIVES'} {mutant}: {line}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} noticed in {time.monotonic() - started:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
