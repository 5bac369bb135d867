"""Results for which malloc maps fresh memory are asked for in huge pages (kernels/large_results.py)."""

from pathlib import Path

import pytest
import torch

import pycv.functional as F
from pycv import use
from pycv.kernels import cpu, large_results
from pycv.problem import parse

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.fixture
def advice(monkeypatch):
    """What is advised, with every result a large one. Shapes of a test are its own: ops keep their plans."""
    given = []
    monkeypatch.setattr(large_results, "LEAST_BYTES", 1)
    monkeypatch.setattr(cpu._cpu, "advise_huge_pages", lambda address, size: given.append((address, size)))
    return given


def place(x: torch.Tensor) -> tuple[int, int]:
    return x.data_ptr(), x.nbytes


def gradients(y: torch.Tensor, *of: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(y, of, torch.randn_like(y))


def test_every_op_advises_its_result(advice):
    x, w = torch.randn(2, 5, 23, 29, requires_grad=True), torch.randn(7, 5, 3, 3, requires_grad=True)
    a, b = torch.randn(37, 41), torch.randn(41, 43)
    with use(backend="cpu"):
        for op in (
            lambda: F.conv2d(x.detach(), w.detach()),
            lambda: F.mm(a, b),
            lambda: F.relu(x.detach()),
            lambda: F.max_pool2d(x.detach(), 3),
            lambda: F.avg_pool2d(x.detach(), 3),
            lambda: F.batch_norm(x.detach(), None, None, training=True),
        ):
            y = op()
            assert advice.pop() == place(y)
        for op, of in (
            (lambda: F.conv2d(x, w), (x, w)),
            (lambda: F.relu(x), (x,)),
            (lambda: F.max_pool2d(x, 3), (x,)),
            (lambda: F.avg_pool2d(x, 3), (x,)),
            (lambda: F.batch_norm(x, None, None, training=True), (x,)),
        ):
            y = op()
            advice.clear()
            for grad in gradients(y, *of):
                assert place(grad) in advice


def test_small_results_have_plain_plans():
    plan = cpu._plan_conv("direct")(parse("conv2d.forward n1c4h8w8 k4r3s3"), 1, 1 << 20)
    assert isinstance(plan, cpu._cpu.ConvPlan)


def test_a_large_plan_is_the_plan_in_all_else(advice):
    problem = parse("conv2d.forward n1c4h8w8 k4r3s3")
    plan = cpu._plan_conv("direct")(problem, 1, 1 << 20)
    plain = cpu._cpu.conv_plan("direct", *cpu._fields.conv(problem), 1, 1 << 20)
    assert isinstance(plan, large_results.LargeResult)
    assert plan.workspace_bytes == plain.workspace_bytes and plan.cost.bytes == plain.cost.bytes


@pytest.mark.skipif(not SETTING.exists(), reason="this kernel knows no transparent huge pages")
def test_the_kernel_takes_the_advice():
    """Whether it then has huge pages to give depends on what else lies in memory."""
    x = torch.randn(2**24 + 77)
    with use(backend="cpu"):
        y = F.relu(x)
    assert "hg" in flags_of_the_mapping_that_holds(y.data_ptr() + y.nbytes // 2)


def flags_of_the_mapping_that_holds(address: int) -> list[str]:
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *values = line.split()
        if "-" in name:
            begin, end = (int(number, 16) for number in name.split("-"))
            inside = begin <= address < end
        elif inside and name == "VmFlags:":
            return values
    return []
