"""Autotune on a GPU: what is measured there, by which clock, and under what it is kept."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch

import pycv
from pycv import registry, settings, tune
from pycv.choice import autotune, cache, device, runs
from pycv.kernels import Kernel, triton
from pycv.kernels._plans import ConvPlan
from pycv.problem import PASSES, parse

from ..backend import DEVICE, STANDIN

pytestmark = pytest.mark.skipif(DEVICE == "cpu", reason="about tensors of a GPU: PYCV_TEST_DEVICE=cuda or standin")

CONV = parse("conv2d.forward n1c8h9w9 k8r3s3 f16 nchw cuda")
SLOW = 0.03  # seconds: longer than a busy machine keeps anybody waiting


class Plan(ConvPlan):
    """Takes so long per run on the device, by way of the host, and notes down how it was run."""

    def __init__(self, seconds: float, first: float = 0.0):
        self.seconds, self.first = seconds, first
        self.runs: list[bool] = []  # whether autocast was on

    def launch(self, *pointers: int) -> None:
        torch.cuda.synchronize()
        time.sleep(self.seconds if self.runs else self.first)
        self.runs.append(torch.is_autocast_enabled("cuda"))
        assert all(pointers[:3])


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("PYCV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(autotune, "SECONDS", 0.02)


@pytest.fixture
def use_plans(only_kernels):
    """Puts kernels with these plans, by algorithm, in the place of those of conv2d.forward."""

    def install(**plans: Any) -> None:
        made = (
            Kernel("conv2d", "forward", "cuda", n, lambda p: None, lambda *_, plan=p: plan) for n, p in plans.items()
        )
        only_kernels("conv2d", "forward", *made)

    return install


def chosen(autotuned: bool = True, problem: Any = CONV) -> registry.Choice:
    with pycv.use(autotune=autotuned):
        return registry.choose(problem, settings.current(), 1)


def test_the_fastest_is_taken_and_remembered(use_plans):
    slow, quick = Plan(SLOW), Plan(1e-4, first=3 * SLOW)  # the first run compiles
    use_plans(slow=slow, quick=quick)
    assert chosen(False).kernel.algorithm == "slow"  # the first of its backend
    with torch.autocast("cuda", dtype=torch.bfloat16):
        tuned = chosen()
    assert tuned.kernel.algorithm == "quick" and tuned.basis == "measured"
    assert tuned.reason.startswith("tuned: measured ") and "; cuda:slow " in tuned.reason
    seconds = dict(tuned.estimates)
    assert seconds["cuda:slow"] >= SLOW > seconds["cuda:quick"]
    assert not any(slow.runs + quick.runs)
    runs = len(slow.runs + quick.runs)
    assert chosen(False).reason == chosen().reason == tuned.reason  # without autotune too
    assert len(slow.runs + quick.runs) == runs
    cache.clear()
    assert chosen(False).kernel.algorithm == "slow"


def test_what_turns_out_not_to_run_is_left_out(use_plans):
    """As a kernel of Triton's that needs more shared memory than this GPU has."""

    class Failing(Plan):
        def launch(self, *pointers: int) -> None:
            raise RuntimeError("out of shared memory")

    use_plans(failing=Failing(0.0), quick=Plan(1e-4))
    with pytest.warns(UserWarning, match="cuda:failing cannot run .*h9w9.*: out of shared memory"):
        assert chosen().kernel.algorithm == "quick"
    use_plans(failing=Failing(0.0), too=Failing(0.0))
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="out of shared memory"):
        chosen()


def test_nothing_is_measured_while_a_graph_is_captured(use_plans, monkeypatch):
    use_plans(slow=(slow := Plan(SLOW)), quick=(quick := Plan(1e-4)))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert chosen().basis == "" and not slow.runs and not quick.runs
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert chosen().basis == "measured"
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert chosen().basis == "measured"  # what is known is known


def changes(monkeypatch):
    """One at a time, what a choice was measured on."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "another GPU")
    yield
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 9))
    yield
    if not triton.missing():
        monkeypatch.setattr("triton.__version__", "0.1")
        yield
    monkeypatch.setattr(torch.version, "cuda", "1.0")
    yield
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 1)
    yield
    monkeypatch.setattr(device, "gpu_kernel_hash", lambda: "other")
    yield


def test_another_gpu_or_other_versions_forget(use_plans, monkeypatch):
    use_plans(slow=Plan(SLOW), quick=Plan(1e-4))
    tuned = chosen()
    for _ in changes(monkeypatch):
        assert chosen(False).basis == ""
        assert chosen().basis == "measured"
    monkeypatch.undo()
    assert tuned.basis == "measured"


def test_torchs_switches_are_in_the_key(use_plans):
    use_plans(slow=Plan(SLOW), quick=Plan(1e-4))
    assert chosen().basis == "measured"
    with torch.backends.cudnn.flags(benchmark=True, deterministic=True, allow_tf32=False):
        assert chosen(False).basis == ""
    assert chosen(False).basis == registry.choose(CONV, settings.current(), threads=2).basis == "measured"


def test_the_cpus_kernels_need_not_be_built(use_plans, monkeypatch):
    def missing():
        raise RuntimeError("the C++ kernels are not built")

    monkeypatch.setattr(device, "current", missing)
    monkeypatch.setattr(device, "kernel_hash", missing)
    use_plans(slow=Plan(SLOW), quick=Plan(1e-4))
    assert chosen().kernel.algorithm == "quick" and cache.path("cuda").exists()
    assert "cuda:quick" in tune.show()


def test_the_hash_is_that_of_the_kernels():
    before = device.gpu_kernel_hash()
    assert len(before) == 16 and before == device.gpu_kernel_hash.__wrapped__()


TEXTS = (
    "conv2d.forward n1c4h5w5 k4r3s3 p1 f32 bias", "conv2d.forward n1c4h5w5 k4r3s3 bf16 nhwc",
    "conv2d.grad_input n1c3h5w5 k4r3s3 u2 f16", "conv1d.grad_weight n2c2w7 k3s3 f32",
    "gemm.forward m5n6k7 f16 a=col bias", "gemm.forward b2m5n6k7 f32 res=row residual+relu",
    "max_pool2d.forward n1c2h5w5 r3s3 u2 p1 f16 indices", "max_pool2d.grad_input n1c2h5w5 r3s3 u2 p1 f32 indices",
    "adaptive_avg_pool2d.forward n1c2h5w5 o2 bf16", "batch_norm.forward n2c3h2w3 f16 training",
    "batch_norm.grad_input n2c3h2w3 bf16 training", "batch_norm.grad_input n2c3h2w3 f32",
    "channel_sum.forward n2c3h2w3 bf16", "local_response_norm.forward n2c3h2w3 l3 f32", "relu.forward e70 bf16",
    "relu.grad_input e70 f64", "conv2d.forward n0c4h9w9 k8r3s3 f32",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_every_family_can_be_tuned(text, monkeypatch):
    problem = parse(text + " cuda")
    contenders = [
        (kernel, kernel.plan and kernel.plan(problem, 1, 2**20))
        for kernel in registry.kernels(problem.op, problem.pass_)
        if kernel.backend in ("cuda", "torch") and kernel.supports(problem) is None
    ]
    monkeypatch.setattr(autotune.timing, "FEW_SAMPLES", 2)
    seconds = autotune.measure(problem, contenders, {}, kept=False, budget=0.0)
    assert any(name.startswith("cuda:") for name in seconds) and all(s > 0 for s in seconds.values())


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize("pass_", PASSES[:2])
def test_trials_run_on_the_problems_device_in_its_dtype(dtype, pass_):
    problem = replace(parse("batch_norm.forward n2c3h2w3 f32 training cuda"), pass_=pass_, dtype=dtype)
    made = runs.Operands(problem)
    wide = torch.float64 if dtype == "f64" else torch.float32
    for name, memory in made.memory.items():
        assert memory.is_cuda and memory.isfinite().all(), name
        assert memory.dtype == (wide if name in ("mean", "invstd") else made.dtype), name
    held, address = made.scratch(100)
    assert held.is_cuda and address % 256 == 0 and address + 100 <= held.data_ptr() + held.nbytes


def test_a_layer_and_its_gradients_are_tuned():
    """Through the ops; on the stand-in for a GPU, which cannot launch Triton's kernels, among the CUDA ones."""
    layer, x = pycv.nn.Conv2d(3, 4, 3).to(DEVICE), torch.randn(1, 3, 6, 6, device=DEVICE, requires_grad=True)
    with pycv.use(autotune=True, backend="cuda" if STANDIN else None), registry.record() as log:
        layer(x).sum().backward()
    bases = {call.choice.problem.pass_: call.choice.basis for call in log if call.choice.problem.op == "conv2d"}
    assert bases == dict.fromkeys(PASSES, "measured")
