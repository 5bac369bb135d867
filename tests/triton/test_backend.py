"""The Triton backend as a whole: where it runs, what it refuses, what is said where Triton is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pycv
from pycv import registry
from pycv.choice import verified
from pycv.kernels import triton as backend
from pycv.problem import parse

ROOT = Path(__file__).resolve().parents[2]


def in_a_new_process(code, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=os.environ | environment, cwd=ROOT, capture_output=True,
        text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_triton_is_installed():
    """Here its absence is a failure: nothing of this backend would be tested."""
    assert backend.missing() is None


def test_what_it_refuses(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    found = (kernel for kernel in registry.kernels("conv2d", "forward") if kernel.backend == "triton")
    entries = {kernel.full_algorithm: kernel for kernel in found}
    text = "conv2d.forward n1c3h9w9 k4r3s3 {} nchw {}"
    assert "only with TRITON_INTERPRET=1" in entries["im2col"].supports(parse(text.format("f32", "cpu")))
    if not torch.cuda.is_available():
        assert "no CUDA device" in entries["im2col"].supports(parse(text.format("f32", "cuda")))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "on CPU tensors" in entries["im2col"].supports(parse(text.format("f32", "cuda")))
    assert entries["im2col"].supports(parse(text.format("f32", "cpu"))) is None
    assert "dtype i64" in entries["im2col"].supports(parse(text.format("i64", "cpu")))
    assert "multiply f32" in entries["implicit_gemm/tf32"].supports(parse(text.format("bf16", "cpu")))
    wide = parse("conv2d.forward n1c32h9w9 k40r3s3 f32 nchw cpu")
    assert "32 and 40 channels per group" in entries["direct"].supports(wide)
    assert entries["fft"].supports(parse(text.format("f16", "cpu"))) is None
    assert "leave out" in entries["fft"].supports(parse("conv2d.forward n1c3h9w9 k4r2s2 u3 f32 nchw cpu"))
    assert "extent 3x66" in entries["fft"].supports(parse("conv2d.forward n1c3h9w99 k4r3s14 d1x5 f32 nchw cpu"))
    assert "prologue" in entries["im2col"].supports(parse(text.format("f32", "cpu") + " pre=relu"))
    long = "conv1d.forward n2c1w1073741824 k1s1 f32 nchw cpu"
    (kernel,) = (k for k in registry.kernels("conv1d", "forward") if k.name == "triton:im2col")
    assert "2147483648 positions" in kernel.supports(parse(long))


NEAR_31_BITS = (
    ("batch_norm.forward n{}c2h1w1 f16 nchw training", 1),
    ("batch_norm.grad_input n2c2h{}w1 f16 nchw", 2),
    ("batch_norm.forward n1c{}h1w1 f16 nchw", 1),
    ("channel_sum.forward n{}c2h1w1 f16 nchw", 1),
    ("gemm.forward m{}n1k1 f16", 1),
    ("gemm.forward m1n{}k1 f16", 1),
    ("gemm.forward m8n8k{} f16", 1),
    ("gemm.forward b{}m1n1k1 f16", 1),
    ("conv2d.forward n1c{}h1w1 k1r3s3 p1 f16 nchw", 9),
    ("conv2d.grad_input n1c1h1w1 k{}r3s3 p1 f16 nchw", 9),
    ("conv2d.grad_weight n1c{0}h1w1 k{0}r1s1 g{0} f16 nchw", 1),
)


@pytest.mark.parametrize(("text", "times"), NEAR_31_BITS)
def test_what_31_bits_do_not_count_is_refused(text, times, monkeypatch):
    """A loop in steps would begin again at the negative numbers, a block's last elements lie there; of whatever is
    counted: nothing is allocated here."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for largest, fits in ((2**31 - 1, False), (2**31 - 2**9, False), (2**30, True)):
        problem = parse(text.format(largest // times) + " cpu")
        entries = [k for k in registry.kernels(problem.op, problem.pass_) if k.backend == "triton" and not k.variant]
        reasons = {kernel.name: kernel.supports(problem) for kernel in entries}
        assert None in reasons.values() if fits else all(reasons.values()), reasons
        assert fits or any("in 31 bits" in reason for reason in reasons.values()), reasons


def test_a_layer_in_the_interpreter():
    """Forward and gradients, in f32 and bf16, from two threads at once. By default another backend is chosen: these
    kernels were verified on no device."""
    assert not any(verified.of(kernel) for kernel in registry.kernels() if kernel.backend == "triton")
    out = in_a_new_process(
        "import torch, pycv, pycv.functional as F\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def once(dtype):\n"
        "    x, w, b = torch.randn(2, 3, 6, 7), torch.randn(5, 3, 3, 3), torch.randn(5)\n"
        "    x, w, b = (t.to(dtype).requires_grad_() for t in (x, w, b))\n"
        "    with pycv.use(backend='triton'):\n"
        "        y = F.conv2d(x, w, b, padding=1)\n"
        "        ours = y, *torch.autograd.grad(y.float().sum(), (x, w, b))\n"
        "    y = torch.nn.functional.conv2d(x, w, b, padding=1)\n"
        "    theirs = y, *torch.autograd.grad(y.float().sum(), (x, w, b))\n"
        "    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)\n"
        "with pycv.registry.record() as calls, ThreadPoolExecutor(2) as pool:\n"
        "    list(pool.map(once, [torch.float32, torch.bfloat16]))\n"
        "print(*sorted({call.choice.kernel.backend for call in calls}))\n"
        "with pycv.use(backend='triton'):\n"  # torch's empty tensors have no address
        "    assert torch.equal(F.mm(torch.empty(3, 0), torch.empty(0, 4)), torch.zeros(3, 4))\n"
        "with pycv.registry.record() as calls: F.relu(torch.ones(3))\n"
        "print(calls[0].choice.kernel.backend == 'triton')",
        TRITON_INTERPRET="1",
    )
    assert out == "triton\nFalse\n"


def test_trial_runs_of_every_family():
    """What autotune would time on a GPU."""
    texts = (
        "conv2d.forward n1c2h4w4 k2r3s3 f32 nchw cpu bias", "conv1d.grad_weight n1c2w6 k2s3 f32 nchw cpu",
        "gemm.forward m3n4k5 f16 cpu bias", "max_pool2d.grad_input n1c2h4w4 r2s2 f32 nchw cpu indices",
        "batch_norm.forward n2c2h2w2 bf16 nchw cpu training", "local_response_norm.forward n1c3h2w2 l3 f16 nchw cpu",
        "channel_sum.forward n2c2h2w2 f32 nchw cpu", "relu.grad_input e9 bf16 cpu",
    )  # fmt: skip
    out = in_a_new_process(
        "import torch, pycv\n"
        "from pycv.choice.runs import Operands, call_of\n"
        "from pycv.problem import parse\n"
        f"for problem in map(parse, {texts}):\n"
        "    operands = Operands(problem)\n"
        "    for kernel in pycv.registry.kernels(problem.op, problem.pass_):\n"
        "        if kernel.backend == 'triton' and kernel.supports(problem) is None:\n"
        "            call_of(kernel, kernel.plan(problem, 1, 2**20), operands, False)()\n"
        "            print(problem.op, kernel.name)",
        TRITON_INTERPRET="1",
    )
    assert {line.split()[0] for line in out.splitlines()} == {parse(text).op for text in texts}


def test_the_example():
    """Loaded by name, as every command does, and as the script that it is; autotune has its blocks to choose from."""
    out = in_a_new_process(
        "import runpy, pycv\nfrom pycv import registry\nfrom pycv.problem import parse\n"
        "(mine,) = (k for k in registry.kernels('relu', 'forward') if k.name == 'triton:mine')\n"
        "print(*(k.name for k in mine.in_tiles(parse('relu.forward e9 f32 cpu'))))\n"
        "runpy.run_path('examples/custom_kernel_triton.py', run_name='__main__')",
        TRITON_INTERPRET="1",
        PYCV_KERNELS="examples/custom_kernel_triton.py",
    )
    assert out.splitlines()[0] == "triton:mine[1024] triton:mine[4096]"
    assert "relu.forward e10000 f32 cpu ran on triton:mine: asked for" in out


@pytest.mark.full
def test_without_triton():
    out = in_a_new_process(
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'triton' else find(name, *a)\n"
        "import torch, pycv\n"
        "try:\n"
        "    with pycv.use(backend='triton'): pycv.functional.relu(torch.ones(3))\n"
        "except pycv.UnsupportedError as error: print(error)\n"
        "print(pycv.info())",
        TRITON_INTERPRET="1",
    )
    assert "Triton is not installed: pip install triton" in out
    assert "Triton" in out and "not found" in out


@pytest.mark.full
def test_kernels_are_imported_when_they_are_needed():
    """Triton itself torch imports, where it is installed."""
    code = "import sys, pycv; pycv.kernels(); print([m for m in sys.modules if m.startswith('pycv.kernels.triton.')])"
    assert in_a_new_process(code) == "[]\n"


def test_registering_beside_them():
    with pytest.raises(ValueError, match="has a kernel triton:direct already"):
        pycv.register(next(kernel for kernel in registry.kernels("relu", "forward") if kernel.backend == "triton"))
