"""transpose, which kernels call on the device, in a program of its own: transpose_cases.cu."""

import os
import subprocess
from pathlib import Path

import pytest

from tools import native

from ..backend import for_cpu

pytestmark = for_cpu

CASES = ("transpose_layouts", "transpose_with_gaps", "transpose_nothing")


@pytest.fixture(scope="module")
def program() -> Path:
    sources = ["csrc/cuda/transpose.cu", "tests/cuda/transpose_cases.cu", "tests/simt/main.cpp"]
    toolchain = native.Toolchain()
    objects = toolchain.compile(native.simt_jobs(sources), progress=False)
    return toolchain.link(objects, native.ROOT / "build/simt/transpose")


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_cases(program, order):
    environment = {**os.environ, "PYCV_SIMT_ORDER": order}
    result = subprocess.run([program, *CASES], capture_output=True, text=True, env=environment)
    assert result.stdout.splitlines() == [f"{case}: ok" for case in CASES], result.stderr
