"""Tests the CUDA kernels, executed by this CPU, under a sanitizer.

    python -m tests.simt races [PYTEST ARGUMENTS]        ThreadSanitizer: races between CUDA threads
    python -m tests.simt addresses [PYTEST ARGUMENTS]    AddressSanitizer: accesses out of bounds or misaligned

builds pycv._simt accordingly, in build/simt, and runs pytest with it (default: tests/cuda). Reports name the kernel
and the line; the first one of ``addresses`` ends the run. Exit status 1 if a test fails or anything is reported.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import native, simt

SUPPRESSIONS = Path(__file__).parent / "races.supp"
MODES = {
    "races": (native.SIMT_RACES, "libtsan.so", {"TSAN_OPTIONS": f"report_signal_unsafe=0 suppressions={SUPPRESSIONS}"}),
    "addresses": (native.SIMT_ADDRESSES, "libasan.so", {"ASAN_OPTIONS": "detect_leaks=0"}),
}
INSIDE = "--inside"  # of the process that has been started with the sanitizer's library


def run_with(module: str, arguments: list[str]) -> int:
    """Runs pytest in this process, which has the sanitizer's library in it, with this file as pycv._simt."""
    del os.environ["LD_PRELOAD"]  # for whatever the tests start
    simt.build = lambda *_, **__: Path(module)  # type: ignore[assignment]  # of what runs CUDA kernels, this one
    import pycv

    spec = importlib.util.spec_from_file_location("pycv._simt", module)
    sys.modules["pycv._simt"] = pycv._simt = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pycv._simt)
    return pytest.main(["--capture=sys", *arguments])  # reports bypass Python


def main() -> int:
    if sys.argv[1:2] == [INSIDE]:
        return run_with(sys.argv[2], sys.argv[3:])
    if len(sys.argv) < 2 or sys.argv[1] not in MODES:
        sys.exit(__doc__)
    how, library, options = MODES[sys.argv[1]]
    module = simt.build(how=how)
    environment = {**os.environ, **options, "OMP_NUM_THREADS": "1"}
    environment["LD_PRELOAD"] = str(native.Toolchain().library(library))
    command = [sys.executable, "-m", "tests.simt", INSIDE, str(module), *(sys.argv[2:] or ["-q", "tests/cuda"])]
    return 0 if subprocess.run(command, env=environment).returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
