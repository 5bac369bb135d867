"""relu on the GPU: vectors, what is left over, tensors off alignment, every dtype, in place."""

import pytest
import torch

import pycv
from pycv import functional as PF
from pycv import registry, settings
from pycv.registry import UnsupportedError

from ..backend import parse
from .execution import assert_right


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "bf16"])
@pytest.mark.parametrize("pass_", ["forward", "grad_input"])
@pytest.mark.parametrize("mask", ["", "mask"])
def test_every_count_around_a_vector_and_a_block(mask, pass_, dtype):
    for count in (0, 1, 3, 4, 8, 9, 255, 1025, 4099):
        for offset in (0, 1, 4):
            assert_right(f"relu.{pass_} e{count} {dtype} cpu {mask}", kinds=["integers", "nonfinite"], offset=offset)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_through_the_op(dtype):
    x = torch.randn(4, 65, dtype=dtype)
    x[0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    leaf = x.clone().requires_grad_()
    with pycv.use(backend="cuda"), pycv.registry.record() as calls:
        y = PF.relu(leaf)
        (grad,) = torch.autograd.grad(y, leaf, x)
        in_place = PF.relu(x.clone(), inplace=True)
    assert [call.choice.kernel.name for call in calls] == ["cuda:direct"] * 3
    torch.testing.assert_close(y, torch.relu(x), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(in_place, torch.relu(x), rtol=0, atol=0, equal_nan=True)
    expected = torch.ops.aten.threshold_backward(x, torch.relu(x), 0)
    torch.testing.assert_close(grad, expected, rtol=0, atol=0, equal_nan=True)
    assert [call.choice.problem.mask for call in calls] == [True, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_mask_outlives_the_result(dtype):
    """The graph holds a bit per element, and what becomes of the result before the gradient comes is all the same."""
    x, saved = torch.randn(4, 65, dtype=dtype), []
    leaf = x.clone().requires_grad_()
    with (
        pycv.use(backend="cuda"),
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t),
    ):
        y = PF.relu(leaf)
    assert [(t.dtype, t.numel()) for t in saved] == [(torch.uint8, 33)]
    y.add_(1).backward(torch.ones_like(y))
    assert torch.equal(leaf.grad, (x > 0).to(dtype))


def test_what_has_no_mask_says_so():
    refusals = [k.supports(parse("relu.grad_input e10 f32 cpu mask")) for k in registry.kernels("relu", "grad_input")]
    assert None in refusals and sum("mask" in (refusal or "") for refusal in refusals) == len(refusals) - 1
    with pytest.raises(UnsupportedError, match=r"mask: the C\+\+ kernels have none"):
        registry.choose(parse("relu.forward e10 f32 cpu mask"), settings.Settings(backend="cpu"), 1)
