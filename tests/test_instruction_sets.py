"""Every kernel under every instruction set: PYCV_CPU_ISA is read once per process, so each gets its own."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from .seed import SEED, sliced

ISAS = ("baseline", "avx2", "avx512")
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
ROOT = Path(__file__).parents[1]


def python(isa: str, *arguments: str) -> str:
    """Runs ``python -m ...`` under an instruction set; skips the test where the machine or the build lacks it."""
    environment = os.environ | {"PYCV_CPU_ISA": isa, "PYCV_SEED": str(SEED)}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    if "has no " + isa in done.stdout + done.stderr:
        pytest.skip(f"this machine or this build has no {isa}")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("isa", ISAS)
def test_fuzzer(isa):
    assert f"instruction set {isa}" in python(isa, "tests.fuzz", "--n", "400", "--seed", str(SEED))


@pytest.mark.full
@pytest.mark.parametrize("isa", ISAS)
def test_fuzzer_at_length(isa):
    python(isa, "tests.fuzz", "--n", "20000", "--seed", str(SEED + 1))


@pytest.mark.parametrize("isa, name", sliced(product(ISAS, CONVOLUTIONS), 1, id="-".join))
def test_convolution_samples(isa, name):
    suite = "tests/ops/test_conv_op_db.py"
    python(isa, "pytest", "-q", "-p", "no:cacheprovider", suite, "-k", f"test_samples[{name}-")
