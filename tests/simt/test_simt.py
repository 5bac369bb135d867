"""Small kernels under host execution: right ones pass in every thread order, wrong ones are caught."""

import os
import subprocess
from pathlib import Path

import pytest

from tools import native

FOLDER = Path(__file__).parent.relative_to(native.ROOT).as_posix()


@pytest.fixture(scope="session")
def program() -> Path:
    sources = [f"{FOLDER}/{name}" for name in ("main.cpp", "language.cu")]
    toolchain = native.Toolchain()
    objects = toolchain.compile(native.simt_jobs(sources), progress=False)
    return toolchain.link(objects, native.ROOT / "build/simt/plain")


@pytest.mark.parametrize("asynchronous", ["eager", "lazy"])
@pytest.mark.parametrize("order", ["forward", "reverse", "random:1"])
def test_right_kernels(program, order, asynchronous):
    environment = {**os.environ, "PYCV_SIMT_ORDER": order, "PYCV_SIMT_ASYNC": asynchronous}
    names = ["tiled_product", "sum_of_halves"]
    result = subprocess.run([program, *names], capture_output=True, text=True, env=environment)
    assert result.stdout.splitlines() == [f"{name}: ok" for name in names], result.stderr
