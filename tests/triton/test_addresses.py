"""Addresses of the Triton kernels: masked loads say what they give where there is nothing, offsets have 64 bits."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pycv.kernels import triton as backend
from pycv.problem import parse

from . import ahead

ROOT = Path(__file__).resolve().parents[2]


def masked_loads_without_fill(source: str) -> list[int]:
    """The lines of loads with a mask that name no value for what it leaves out: on a GPU that is whatever was there."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    loads = (call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "load")
    named = ((load.lineno, {keyword.arg for keyword in load.keywords}, len(load.args)) for load in loads)
    return [line for line, names, given in named if ("mask" in names or given > 1) and "other" not in names]


def test_masked_loads_name_their_fill_value():
    written = ("tl.load(p, mask=m)", "tl.load(p, m)", "tl.load(p, mask=m, other=0)", "tl.load(p)")
    assert masked_loads_without_fill("\n".join(written)) == [1, 2]
    files = sorted((ROOT / "kernels/triton").glob("*.py"))
    found = {file.name: lines for file in files if (lines := masked_loads_without_fill(file.read_text()))}
    assert not found and any("tl.load(" in file.read_text() for file in files)


@pytest.mark.full
@pytest.mark.skipif(backend.interpreted(), reason="TRITON_INTERPRET=1: nothing is compiled")
def test_elements_beyond_two_to_the_31():
    """In the code for a GPU 64 bits count them; 32 do where those are enough, but for relu's."""
    for text, wide in (
        ("max_pool2d.forward n32c64h64w64 r2s2 u2 bf16 nchw cuda", False),
        ("max_pool2d.forward n131072c64h64w64 r2s2 u2 bf16 nchw cuda", True),
        ("relu.forward e4294967296 bf16 cuda", True),
    ):
        (kernel,) = ahead.kernels(problem := parse(text), "direct")
        with ahead.pretending(90):
            (binary,) = ahead.compiled(problem, kernel)
        assert bool(re.search(r"= arith\.muli %\w+, %\w+ : i64\b", binary.asm["ttir"])) == wide, text  # program * BLOCK


@pytest.mark.full
def test_offsets_beyond_two_to_the_31():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.triton.far_apart"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
