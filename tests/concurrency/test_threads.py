"""Right at any thread count, from several Python threads at once, and after fork; one OpenMP runtime."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pycv import functional as PF
from pycv.problem import parse

from ..fuzz import check

# Large enough that every kernel splits its work, and uneven, so that the shares differ.
PROBLEMS = [
    "conv2d.forward n2c19h33w31 k21r3s3 p1 f32 nchw res=nchw cpu bias+residual+relu",
    "conv2d.forward n1c19h33w31 k21r3s3 u2 p1 f64 nhwc cpu bias",
    "conv2d.grad_input n2c19h33w31 k21r3s3 p1 f32 nhwc cpu",
    "conv2d.grad_weight n3c19h17w31 k21r3s3 p1 f32 nchw cpu",
    "conv2d.forward n2c30h23w29 k30r3s3 p1 g30 f32 nhwc cpu",
    "conv3d.forward n2c5d9h9w17 k7t3r3s3 p1 f32 nchw cpu",
    "gemm.forward b2m131n67k93 f32 b=col cpu bias+relu",
    "max_pool2d.forward n2c19h41w43 r3s3 u2 p1 f32 nchw cpu indices",
    "max_pool2d.grad_input n2c19h41w43 r3s3 u2 p1 f32 nhwc cpu indices",
    "avg_pool2d.forward n2c19h41w43 r3s3 u2 p1 f64 nhwc cpu",
    "adaptive_avg_pool2d.grad_input n2c19h31w33 o7 f32 nchw cpu",
    "batch_norm.forward n5c19h31w33 f32 nhwc cpu training",
    "batch_norm.grad_input n5c19h31w33 f32 nchw cpu training",
    "local_response_norm.forward n2c19h31w33 l5 f32 nhwc cpu",
    "channel_sum.forward n5c19h31w33 f32 nchw cpu",
    "relu.forward e150001 f32 cpu",
    "relu.grad_input e150001 f32 cpu",
]


@pytest.mark.parametrize("threads", [1, 3, 8])
@pytest.mark.parametrize("text", PROBLEMS)
def test_thread_counts(text, threads):
    problem = parse(text)
    for kernel in check.kernels(problem):
        for kind in ("integers", "normal"):
            assert check.trial(problem, kernel, check.Variant(kind, threads=threads)) is None


def network(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient through two layers, and torch's in float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 7, 19 + seed, 23, generator=generator)
    weights = [torch.randn(9, 7, 3, 3, generator=generator), torch.randn(5, 9, 3, 3, generator=generator)]
    gradients = []
    for functions, dtype in ((PF, torch.float32), (F, torch.float64)):
        leaf = x.to(dtype).requires_grad_()
        y = functions.relu(functions.conv2d(leaf, weights[0].to(dtype), padding=1))
        y = functions.conv2d(y, weights[1].to(dtype), stride=2)
        gradients.append(torch.autograd.grad(y.square().sum(), leaf)[0].double())
    return gradients[0], gradients[1]


def assert_network_is_right(seed: int) -> None:
    ours, expected = network(seed)
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_several_python_threads_at_once():
    """Different shapes, so that plans are made and looked up at the same time as others run."""
    failures: list[str] = []
    barrier = threading.Barrier(6)

    def work(seed: int) -> None:
        try:
            barrier.wait(30)
            for step in range(4):
                assert_network_is_right((seed + step) % 5)
        except BaseException:
            failures.append(traceback.format_exc())

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_one_plan_shared_by_threads():
    """A plan keeps no state: one plan, many runs at once, each with its own memory."""
    for text in (PROBLEMS[0], PROBLEMS[3], PROBLEMS[6]):
        problem = parse(text)
        for kernel in check.kernels(problem):
            plan = kernel.plan(problem, 2, 2**28)
            shared = replace(kernel, plan=lambda *arguments, plan=plan: plan)
            variants = [check.Variant("integers", seed) for seed in range(4)]
            with ThreadPoolExecutor(len(variants)) as pool:
                messages = pool.map(check.trial, repeat(problem), repeat(shared), variants)
                assert list(messages) == [None] * len(variants)


def exit_status(child: int, seconds: float) -> int:
    """Waits for a forked child; kills it and fails the test if it hangs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"the forked child did not finish within {seconds} s")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_after_fork():
    """The thread pool does not survive a fork: a child computes alone, and rightly, plans of its parent included.

    It compares in NumPy and calls no torch op that is parallel, nor autograd: torch's own would wait for ever.
    """
    torch.set_num_threads(2)
    x, w = torch.randn(2, 16, 64, 64), torch.randn(16, 16, 3, 3)
    expected = PF.relu(PF.conv2d(x, w, padding=1))
    child = os.fork()
    if child == 0:
        try:
            same = (PF.relu(PF.conv2d(x, w, padding=1)).numpy() == expected.numpy()).all()
            problem = parse("gemm.forward m70n70k70 f32 cpu")
            right = all(check.trial(problem, k, check.Variant(threads=3)) is None for k in check.kernels(problem))
            os._exit(0 if same and right else 3)
        finally:
            os._exit(4)
    assert exit_status(child, 60) == 0
    np.testing.assert_array_equal(PF.relu(PF.conv2d(x, w, padding=1)).numpy(), expected.numpy())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see what is mapped")
def test_one_openmp_runtime():
    code = "import pycv.functional, torch; from pycv import _cpu; torch.ones(3); print(open('/proc/self/maps').read())"
    maps = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    runtimes = set(re.findall(r"\S*/lib(?:gomp|iomp5|omp)[-.\w]*\.so\S*", maps))
    assert len(runtimes) == 1, runtimes
