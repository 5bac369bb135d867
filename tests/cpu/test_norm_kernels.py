"""batch_norm at sizes where tensors are cut up, shared out and written past the caches, in every layout."""

import numpy as np
import pytest
import torch

import pycv
from pycv import registry
from pycv.problem import parse

from .. import compare, draw, raw

LAYOUTS = ("nchw", "nhwc", "nchw8c", "nchw16c")
SHAPES = ("n2c35h23w29", "n3c66h17w16", "n1c130h7w7", "n70c20", "n2c1h40w41", "n1c3h64w65")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
def test_every_layout(shape, layout, pass_):
    for flags in ("", "training", "training+relu", "training+residual+relu", "residual"):
        residual = f"res={layout}" if "residual" in flags else ""
        check(f"batch_norm.{pass_} {shape} f32 {layout} {residual} cpu {flags}", threads=3)
        check(f"batch_norm.{pass_} {shape} f64 {layout} {residual} cpu {flags}", threads=1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_large_tensors_are_written_past_the_caches(memory_format):
    """From 16 MiB on, where vectors are aligned: torch's allocations are."""
    x = torch.randn(1, 32, 384, 385).to(memory_format=memory_format)
    grad_output = torch.randn(1, 32, 384, 385).to(memory_format=memory_format)
    results = []
    for batch_norm, dtype in ((pycv.functional.batch_norm, x.dtype), (torch.nn.functional.batch_norm, torch.float64)):
        leaf = x.to(dtype).requires_grad_()
        y = batch_norm(leaf, None, None, training=True)
        results.append([t.double() for t in (y, *torch.autograd.grad(y, leaf, grad_output.to(dtype)))])
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)


def check(text: str, threads: int) -> None:
    problem = parse(text)
    (kernel,) = [k for k in registry.kernels(problem.op, problem.pass_) if k.backend == "cpu"]
    assert kernel.supports(problem) is None
    arrays, scalars = draw.data(problem, "normal", np.random.default_rng(7))
    computed = raw.run(problem, kernel, arrays, scalars, threads)
    compare.assert_close(problem, computed, arrays, False, **scalars)


def test_mixed_blocks_are_refused_in_words():
    problem = parse("batch_norm.forward n2c16h4w4 f32 nchw8c>nchw16c cpu training")
    reasons = {k.supports(problem) for k in registry.kernels("batch_norm", "forward") if k.backend == "cpu"}
    assert reasons == {"layouts nchw8c, nchw16c: this kernel takes blocks of one size"}
