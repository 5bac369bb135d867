"""Builds and runs the native self-test.

    python -m tests.native                      every instruction set of this machine, as the extension is compiled
    python -m tests.native --sanitize           the same under AddressSanitizer and UBSan
    python -m tests.native --sanitize --drawn   one of the instruction sets, drawn by the seed of the tests, and without
                                                those checks of UBSan that are made at every access
    python -m tests.native --target aarch64     cross-compiled, under qemu-user

Exit status 1 if a kernel is wrong, touches memory outside its buffers or has undefined behaviour.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools import native

from ..seed import SEED

SELFTEST = "tests/native/selftest.cpp"
SANITIZE = ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
# Checks at every access, most of which AddressSanitizer makes as well, and which take half of the compiler's time.
AT_EVERY_ACCESS = "-fno-sanitize=null,alignment,object-size,pointer-overflow,vptr"
PROGRAMS = native.ROOT / "build/native"
VARIANTS, FAILURES = 12, 10  # of a problem; to stop at


def build(toolchain: native.Toolchain, sets, name: str, link=()) -> Path:
    jobs = [native.Job(SELFTEST, "selftest", ("-O1",)), *native.kernel_jobs(sets)]
    print(f"{name}: compiling what changed", flush=True)
    return toolchain.link(toolchain.compile(jobs), PROGRAMS / name, link)


def run(program: Path, isa: str, variants: int, emulator=(), part: int = 0, parts: int = 1) -> bool:
    """``part`` of so many equal ones of the kernels."""
    environment = {**os.environ, "PYCV_CPU_ISA": isa, "OMP_WAIT_POLICY": "passive"}
    command = [*emulator, program, *map(str, (variants, FAILURES, part, parts))]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(result.stdout, end="", flush=True)
    return result.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.native", description=__doc__.splitlines()[0])
    parser.add_argument("--sanitize", action="store_true", help="build with AddressSanitizer and UBSan")
    parser.add_argument("--drawn", action="store_true", help="one instruction set, drawn by PYCV_SEED or the commit")
    parser.add_argument("--target", choices=["aarch64"], help="cross-compile for this machine and run under qemu-user")
    parser.add_argument("--variants", type=int, help=f"variants per problem (default: {VARIANTS})")
    options = parser.parse_args()
    started = time.monotonic()
    if options.target:
        compiler, emulator = f"{options.target}-linux-gnu-g++", f"qemu-{options.target}"
        emulator = next(filter(shutil.which, (emulator, f"{emulator}-static")), emulator)
        for tool in (compiler, emulator):
            if shutil.which(tool) is None:
                sys.exit(
                    f"{tool} is not installed.\nInstall:\n"
                    f"  Debian/Ubuntu: apt-get install g++-{options.target}-linux-gnu qemu-user"
                )
        sets = native.instruction_sets(options.target)
        program = build(native.Toolchain(compiler), sets, options.target, ["-static"])
        passed = all(run(program, isa.name, options.variants or 2, [emulator]) for isa in sets)
    else:
        flags = (*native.FLAGS, *SANITIZE) if options.sanitize else native.FLAGS
        flags += (AT_EVERY_ACCESS,) if options.sanitize and options.drawn else ()
        name = "sanitized" if options.sanitize else "plain"
        sets = native.runnable()
        if absent := [isa.name for isa in native.instruction_sets() if isa not in sets]:
            print(f"not run, this processor lacks it: {', '.join(absent)}", flush=True)
        if options.drawn:
            sets = [sets[SEED % len(sets)]]
            print(f"seed {SEED}: {sets[0].name}", flush=True)
        program = build(native.Toolchain(flags=flags), sets, name)
        parts = max(1, native.worker_count() // len(sets))
        with ThreadPoolExecutor(native.worker_count()) as pool:
            runs = [
                pool.submit(run, program, isa.name, options.variants or VARIANTS, (), part, parts)
                for isa in sets
                for part in range(parts)
            ]
        passed = all(each.result() for each in runs)
    print(f"native self-test {'passed' if passed else 'FAILED'} in {time.monotonic() - started:.0f} s")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
