"""batch_norm, channel_sum and local_response_norm on the GPU: chunks, vectors and what has none, every dtype."""

import pytest
import torch
import torch.nn.functional as F

import pycv
from pycv import functional as PF
from pycv import registry

from ..backend import parse
from .execution import assert_right

DTYPES = ("f32", "f64", "f16", "bf16")
# Vectors and none of them; more channels than a warp has; positions that end within a vector, a row and a chunk.
SHAPES = ("n2c3h5w7", "n3c16h8w8", "n1c70h6w6", "n1c2h47w45", "n2c264h2w2", "n9c5")


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "nchw>nhwc", "nhwc/99999/300>nhwc/99999/280"])
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
def test_batch_norm_in_every_layout(pass_, layout):
    for shape in SHAPES:
        for flags in ("training", "training+residual+relu", "relu", "residual"):
            residual = f"res={layout.split('>')[-1]}" if "residual" in flags else ""
            order = "reverse" if "residual" in flags else "forward"
            assert_right(f"batch_norm.{pass_} {shape} f32 {layout} {residual} cpu {flags}", orders=[order])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
def test_batch_norm_in_every_dtype(pass_, dtype):
    for shape, layout in (("n2c16h5w8", "nhwc"), ("n2c3h4w12", "nchw"), ("n2c3h5w5", "nchw")):
        for flags in ("training+relu", "residual"):
            residual = f"res={layout}" if "residual" in flags else ""
            assert_right(f"batch_norm.{pass_} {shape} {dtype} {layout} {residual} cpu {flags}", kinds=["normal"])


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_mean_far_larger_than_the_deviation(channels_last):
    x = torch.randn(2, 8, 12, 12) + 1000
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    with pycv.use(backend="cuda"):
        y = PF.batch_norm(x, None, None, training=True)
    expected = F.batch_norm(x.double(), None, None, training=True)
    assert (y - expected).abs().max() < 1e-4  # float32 knows x - mean to 6e-5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "nhwc/9000/270"])
def test_channel_sum(layout, dtype):
    for shape in (*SHAPES, "n0c3h2w2"):
        for offset in (0, 1):
            kinds = ["integers", "normal", "nonfinite"] if offset else ["normal"]
            assert_right(f"channel_sum.forward {shape} {dtype} {layout}>nchw cpu", kinds=kinds, offset=offset)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
def test_local_response_norm(pass_, dtype):
    """Windows of even and odd size within a tile of channels, across two, and larger than all of them."""
    for shape in ("n2c5h3w4", "n1c70h6w7", "n1c33"):
        for window in (1, 2, 5) if dtype != "f64" else (4, 32):
            for layout in ("nchw", "nhwc", "nchw>nhwc"):
                text = f"local_response_norm.{pass_} {shape} l{window} {dtype} {layout} cpu"
                assert_right(text, kinds=["normal"], alpha=0.5, beta=0.75 if window > 2 else 1.5)


def test_windows_too_wide_for_shared_memory_are_refused_in_words():
    problem = parse("local_response_norm.forward n2c70h4w4 l33 f64 nchw cpu")
    (kernel,) = [k for k in registry.kernels(problem.op, problem.pass_) if k.backend == "cuda"]
    assert "window 33" in kernel.supports(problem)


@pytest.mark.parametrize("channels_last", [False, True])
def test_batch_norm_of_bfloat16_through_the_op(channels_last):
    """The statistics that the gradient reads are float32."""
    x = (torch.randn(4, 16, 6, 5) + 10).bfloat16()
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    weight, grad_output = torch.randn(16).bfloat16(), torch.randn(4, 16, 6, 5).bfloat16()
    leaves = [t.clone().requires_grad_() for t in (x, weight)]
    exact = [t.double().requires_grad_() for t in (x, weight)]
    with pycv.use(backend="cuda"):
        y = PF.batch_norm(leaves[0], None, None, leaves[1], training=True)
        grads = torch.autograd.grad(y, leaves, grad_output)
    y64 = F.batch_norm(exact[0], None, None, exact[1], training=True)
    grads64 = torch.autograd.grad(y64, exact, grad_output.double())
    for got, wanted in zip((y, *grads), (y64, *grads64), strict=True):
        assert (got - wanted).abs().max() <= 2**-8 * wanted.abs().max()
