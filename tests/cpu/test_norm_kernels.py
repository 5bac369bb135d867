"""batch_norm at sizes where tensors are cut up, shared out and written past the caches, in every layout."""

import numpy as np
import pytest

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


@pytest.mark.full
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
def test_written_past_the_caches(layout, pass_):
    """From 16 MiB on; once aligned, once not."""
    for offset in (0, 1):
        check(f"batch_norm.{pass_} n2c34h260w256 f32 {layout} cpu training", threads=2, offset=offset)


def check(text: str, threads: int, offset: int = 1) -> None:
    problem = parse(text)
    (kernel,) = [k for k in registry.kernels(problem.op, problem.pass_) if k.backend == "cpu"]
    assert kernel.supports(problem) is None
    arrays, scalars = draw.data(problem, "normal", np.random.default_rng(7))
    computed = raw.run(problem, kernel, arrays, scalars, threads, offset=offset)
    compare.assert_close(problem, computed, arrays, False, **scalars)


def test_mixed_blocks_are_refused_in_words():
    problem = parse("batch_norm.forward n2c16h4w4 f32 nchw8c>nchw16c cpu training")
    reasons = {k.supports(problem) for k in registry.kernels("batch_norm", "forward") if k.backend == "cpu"}
    assert reasons == {"layouts nchw8c, nchw16c: this kernel takes blocks of one size"}
