"""The backend `cuda` in the registry: what it refuses in words, and that nobody gets it who did not ask."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

import pycv
from pycv import functional as PF
from pycv import registry, settings
from pycv.choice import verified
from pycv.kernels import cuda
from pycv.ops import _dispatch
from pycv.problem import parse

from ..backend import for_cpu

pytestmark = for_cpu


def choose(text: str, **wanted) -> registry.Choice:
    with pycv.use(**wanted):
        return registry.choose(parse(text), settings.current(), 1)


def answers(text: str) -> dict[str, str | None]:
    problem = parse(text)
    entries = registry.kernels(problem.op, problem.pass_)
    return {kernel.name: kernel.supports(problem) for kernel in entries if kernel.backend == "cuda"}


def test_refusals_in_words(monkeypatch):
    assert answers("relu.forward e10 i32 cpu")["cuda:direct"].startswith("dtype i32: the CUDA kernels take f32")
    assert "PYCV_CUDA_HOST=1" in answers("relu.forward e10 cuda")["cuda:direct"]
    monkeypatch.setattr(cuda, "host_module", lambda: None)
    assert "python -m tools.simt" in answers("relu.forward e10 cpu")["cuda:direct"]
    monkeypatch.delenv("PYCV_CUDA_HOST")
    assert answers("relu.forward e10 cpu")["cuda:direct"] == (
        "device cpu: the CUDA kernels run on a GPU, on CPU tensors only with PYCV_CUDA_HOST=1"
    )


def test_without_a_device_or_the_module(monkeypatch):
    class NoDevice:
        device_count = staticmethod(lambda: 0)
        device_error = staticmethod(lambda: "no CUDA-capable device is detected")

    monkeypatch.delenv("PYCV_CUDA_HOST")
    monkeypatch.setattr(cuda, "_cuda", NoDevice)
    with pytest.raises(pycv.UnsupportedError, match=r"no CUDA device \(no CUDA-capable device is detected\)"):
        choose("relu.forward e10 cuda", backend="cuda")
    monkeypatch.setattr(cuda, "_cuda", None)
    monkeypatch.setattr(cuda, "missing", "No module named 'pycv._cuda'", raising=False)
    with pytest.raises(pycv.UnsupportedError, match="the CUDA kernels are not built"):
        choose("relu.forward e10 cuda", backend="cuda")


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        ("7.5;8.0+PTX;9.0a", (9, 0), True),
        ("7.5;8.0+PTX;9.0a", (8, 6), True),  # the binary of 8.0
        ("7.5;8.0+PTX;9.0a", (12, 0), True),  # its PTX
        ("7.5;8.0+PTX;9.0a", (7, 0), False),
        ("9.0a", (9, 0), True),
        ("9.0a", (10, 0), False),
        ("8.6", (8, 0), False),
        ("8.0", (9, 0), False),
        ("10.0f", (10, 3), True),
        ("10.0f", (12, 0), False),
    ],
)
def test_code_for_a_device(architectures, capability, runs):
    assert cuda.has_code_for(architectures, capability) == runs


@pytest.mark.parametrize(
    ("architectures", "capability", "newer", "hopper"),
    [
        ("7.5;8.0+PTX;9.0a", (9, 0), True, True),
        ("7.5;8.0+PTX;9.0a", (8, 6), True, False),
        ("7.5", (7, 5), False, False),
        ("7.5+PTX", (8, 0), False, False),  # the code that loads has no tensor cores: it would trap
        ("8.0+PTX", (9, 0), True, False),
        ("9.0", (9, 0), True, False),
    ],
)
def test_kernels_of_newer_devices_need_code_of_them(monkeypatch, architectures, capability, newer, hopper):
    monkeypatch.delenv("PYCV_CUDA_HOST")
    monkeypatch.setattr(cuda, "_cuda", SimpleNamespace(architectures=architectures))
    monkeypatch.setattr(cuda, "capability", lambda: capability)
    assert (cuda._before(8, 0) is None) == newer
    assert (cuda._exactly(9, 0) is None) == hopper


def test_nobody_gets_an_unverified_kernel_who_did_not_ask():
    """On the CPU of this machine, and (f16) where only torch and an unverified kernel are left."""
    assert choose("relu.forward e10 f32 cpu").kernel.name == "cpu:direct"
    default = choose("relu.forward e10 f16 cpu")
    assert default.kernel.name == "torch:torch" and "never verified" in default.reason
    assert choose("relu.forward e10 f32 cpu", algorithm="direct").kernel.name == "cpu:direct"
    assert choose("relu.forward e10 f32 cpu", backend="cuda").kernel.name == "cuda:direct"
    assert choose("gemm.forward m8n8k8 f32 cpu", prefer="simt_1_naive").kernel.name == "cuda:simt_1_naive"
    assert choose("gemm.forward m8n8k8 f32 cpu", algorithm="simt_3_shared").reason == "asked for"
    ladder = choose("gemm.forward m8n8k8 f32 cpu", backend="cuda")
    assert ladder.kernel.algorithm == "simt_8_warp_tiled" and ladder.reason.startswith("the first of its backend")


def test_a_kernel_verified_on_this_device_is_chosen(monkeypatch):
    record = verified.Verification("relu", "forward", "cuda:direct", "Some GPU", "2026-01-31", "abc")
    monkeypatch.setattr(verified, "records", lambda: (record,))
    monkeypatch.setattr(cuda, "on_host", lambda: False)
    monkeypatch.setattr(cuda, "unusable", lambda: None)
    monkeypatch.setattr(cuda, "capability", lambda: (8, 0))
    monkeypatch.setattr(cuda, "_cuda", SimpleNamespace(architectures="7.5;8.0+PTX;9.0a", kernels=tuple))
    monkeypatch.setattr(registry, "_plan", lambda *_: "a plan")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    assert choose("relu.forward e10 f32 cuda").kernel.name == "cuda:direct"
    assert choose("relu.grad_input e10 f32 cuda").kernel.name == "torch:torch"
    assert choose("gemm.forward m8n8k8 f32 cuda").kernel.name == "torch:torch"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Another GPU")
    assert choose("relu.forward e10 f32 cuda").kernel.name == "torch:torch"
    rows = {
        (r["op"], r["pass"], r["algorithm"]): r["GPU state"] for r in pycv.kernels().rows() if r["backend"] == "cuda"
    }
    assert rows["relu", "forward", "direct"].endswith("verified on Some GPU (2026-01-31, abc)")
    assert rows["relu", "grad_input", "direct"].endswith("not verified on a device")


def test_kernels_are_chosen_for_the_gpu_that_the_tensors_are_on(monkeypatch):
    """A Hopper beside an Ampere, which is torch's current one."""
    current = [0]

    @contextmanager
    def device(other):
        before, current[0] = current[0], other.index
        yield
        current[0] = before

    monkeypatch.setattr(cuda, "on_host", lambda: False)
    monkeypatch.setattr(cuda, "unusable", lambda: None)
    monkeypatch.setattr(cuda, "capability", lambda: ((8, 0), (9, 0))[current[0]])
    monkeypatch.setattr(cuda, "_cuda", SimpleNamespace(architectures="8.0;9.0a", kernels=tuple))
    monkeypatch.setattr(registry, "_plan", lambda *_: "a plan")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    problem = parse("gemm.forward m64n64k64 bf16 b=col cuda")
    with pycv.use(backend="cuda"):
        chosen = [
            _dispatch.choose(torch.device("cuda", index), problem, settings.current()).kernel.algorithm
            for index in (0, 1)
        ]
    assert chosen == ["mma_sync", "wgmma_3_persistent"] and current == [0]


def test_the_record_names_kernels_that_exist():
    names = {(kernel.op, kernel.pass_, kernel.name) for kernel in registry.kernels()}
    assert {(v.op, v.pass_, v.kernel) for v in verified.records()} <= names


def test_every_entry_is_in_the_module_and_can_be_planned():
    problems = {"relu": "relu.{} e5 f32 cpu", "gemm": "gemm.{} m2n2k2 f32 cpu"}
    entries = [kernel for kernel in registry.kernels() if kernel.backend == "cuda" and kernel.op in problems]
    for kernel in entries:
        problem = parse(problems[kernel.op].format(kernel.pass_))
        assert kernel.plan(problem, 1, 2**20) is not None
        assert "host-executed" in cuda.state(kernel)
    assert len(entries) > 8


def test_what_a_kernel_throws_is_an_error_of_python(monkeypatch):
    """On both ways in: a workspace that is not aligned stops the first asynchronous copy."""
    plan = cuda.host_module().pointwise_plan("direct", "relu", "forward", "f32", 2**40, False)
    for call in (plan.run, plan.launch):
        with pytest.raises(RuntimeError, match="relu_kernel"):
            call(2, 0, 2)


def test_a_plan_runs_on_the_current_stream_of_its_device(monkeypatch):
    calls = []

    class Native:
        workspace_bytes = 8

        def launch(self, *addresses):
            calls.append(addresses)

        def run(self, *arguments, stream, **named):
            calls.append((*arguments, *named.values(), stream))

    class Module:
        device_count = staticmethod(lambda: 2)
        device_of = staticmethod(lambda address: {0: -1, 7: 1}.get(address, 0))

    guards = []

    class Guard:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            guards.append(self.device)

        def __exit__(self, *_):
            guards.append("end")

    monkeypatch.setattr(cuda, "_cuda", Module)
    monkeypatch.setattr(cuda, "_device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", Guard)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 100 + device, raising=False)
    plan = cuda._StreamedPlan(Native())
    plan.launch(5, 6)
    plan.launch(0, 0)
    assert calls == [(5, 6, 100), (0, 0, 100)] and not guards
    plan.launch(7, 6)
    plan.run(7, residual=3)
    plan.launch(0, 7)  # of an empty tensor
    assert calls[2:] == [(7, 6, 101), (7, 3, 101), (0, 7, 101)] and guards == [1, "end"] * 3
    assert plan.workspace_bytes == 8 and plan.prepared_weight_bytes == 0


def test_half_precision_runs_through_the_ops():
    a, b = torch.randn(9, 20, dtype=torch.bfloat16), torch.randn(20, 7, dtype=torch.bfloat16)
    with pycv.use(backend="cuda"):
        y = PF.mm(a, b)
    torch.testing.assert_close(y.float(), a.float() @ b.float(), rtol=2**-7, atol=1e-5)
