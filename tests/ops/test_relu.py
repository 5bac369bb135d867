"""relu: every kind of tensor that torch takes, in place and not, its gradients, and who runs it when."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing._internal.common_methods_invocations import op_db

import pycv
from pycv import functional as PF
from pycv import registry
from pycv.problem import PointwiseProblem

from ..backend import BACKEND, DEVICE, STANDIN
from .agreement import gradients_hold, outcome

NAN, INF = float("nan"), float("inf")
RELU = next(op for op in op_db if op.name == "nn.functional.relu")


def strides(x):
    """Where they matter."""
    return [stride for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1 and x.numel()]


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_samples_of_torch(dtype):
    samples = [*RELU.sample_inputs(DEVICE, dtype), *RELU.reference_inputs(DEVICE, dtype)]
    with pycv.use(backend=BACKEND), registry.record() as calls:
        for sample in samples:
            x = sample.input.detach().requires_grad_()
            y, expected = PF.relu(x), F.relu(x)
            assert strides(y) == strides(expected)
            torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
            g = torch.randn_like(y)
            assert torch.equal(*(torch.autograd.grad(out, x, g)[0] for out in (y, expected)))
    assert len(calls) >= 2 * len(samples)
    assert {call.choice.kernel.backend for call in calls} == {BACKEND}


@pytest.mark.parametrize("count", [1, 7, 64, 1000])
def test_special_values(count):
    x = torch.tensor([NAN, -INF, INF, -0.0, 0.0, -1.0, 2.0]).repeat(count)[:count].requires_grad_()
    with pycv.use(backend=BACKEND):
        y = PF.relu(x)
    torch.testing.assert_close(y, F.relu(x), rtol=0, atol=0, equal_nan=True)
    (ours,) = torch.autograd.grad(y.sum(), x)
    (torchs,) = torch.autograd.grad(F.relu(x).sum(), x)
    assert torch.equal(ours, torchs)


def test_tensors_larger_than_caches():
    x, g = torch.randn(2**21 + 77), torch.randn(2**21 + 77)  # no multiple of a vector for any number of threads
    x[::1000] = NAN
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    with pycv.use(backend=BACKEND):
        y, expected = PF.relu(leaves[0]), F.relu(leaves[1])
        (ours,) = torch.autograd.grad(y, leaves[0], g)
        torch.testing.assert_close(PF.relu(x, inplace=True), expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(ours, torch.autograd.grad(expected, leaves[1], g)[0])


LAYOUTS = {
    "dense": lambda: torch.randn(3, 5, 7, 4),
    "transposed": lambda: torch.randn(5, 3).t(),
    "channels_last": lambda: torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "strided": lambda: torch.randn(4, 10)[:, ::3],
    "expanded": lambda: torch.randn(3, 1).expand(3, 4),
    "scalar": lambda: torch.randn(()),
    "empty": lambda: torch.randn(0, 3),
    "negated": lambda: torch.randn(3, 4, dtype=torch.complex64).conj().imag,
    "one negated": lambda: torch.tensor([1 + 2j]).conj().imag,
    "int": lambda: torch.arange(-3, 3),
    "half": lambda: torch.randn(5).half(),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse_csr": lambda: torch.eye(3).to_sparse_csr(),
    "mkldnn": lambda: torch.randn(3, 3, device="cpu").to_mkldnn(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_tensor(layout):
    """After a dense one of the same size, whose kernel must not be taken for what has no plain memory."""
    if STANDIN and "sparse" in layout:
        pytest.skip("the stand-in for a GPU has no sparse tensors")
    x = LAYOUTS[layout]()
    PF.relu(torch.randn(x.shape))
    y, expected = PF.relu(x), F.relu(x)
    assert (y.layout, y.dtype) == (expected.layout, expected.dtype)
    if x.layout is torch.strided:
        assert strides(y) == strides(expected)
    dense = [t.to_dense() if t.layout is not torch.strided else t for t in (y, expected)]
    assert torch.equal(*dense)


@pytest.mark.parametrize("layout", ["dense", "transposed", "channels_last", "strided", "scalar", "empty", "int"])
def test_in_place(layout):
    x = LAYOUTS[layout]()
    expected, version = F.relu(x), x._version
    assert PF.relu(x, inplace=True) is x
    assert torch.equal(x, expected)
    assert x._version > version


def test_in_place_gradient_and_version_check():
    leaf = torch.randn(10, requires_grad=True)
    PF.relu(leaf * 1, inplace=True).sum().backward()
    assert torch.equal(leaf.grad, (leaf > 0).float())
    y = leaf.exp()
    PF.relu(y, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()  # exp needs its result, which is gone
    with pytest.raises(RuntimeError, match="leaf Variable"):
        PF.relu(leaf, inplace=True)


def no_grad_view(leaf):
    with torch.no_grad():
        return leaf.view(2, 2)


@pytest.mark.parametrize(
    "made", [lambda x: x, lambda x: x.view(2, 2), lambda x: (x * 1).chunk(2)[0], no_grad_view],
    ids=["leaf", "view of a leaf", "one of several views", "view made without gradients"],
)  # fmt: skip
def test_in_place_where_autograd_forbids_it_changes_nothing(made):
    leaf = torch.tensor([-1.0, 2.0, -3.0, 4.0], requires_grad=True)
    x = made(leaf)
    before, version = x.detach().clone(), x._version
    raised = [outcome(function, x, inplace=True) for function in (F.relu, PF.relu)]
    assert type(raised[0]) is type(raised[1]) is RuntimeError and str(raised[0]) == str(raised[1])
    assert torch.equal(x.detach(), before) and x._version == version


def test_in_place_on_a_view():
    leaves = [torch.randn(4, 6, requires_grad=True) for _ in range(2)]
    leaves[1].data.copy_(leaves[0])
    for relu, leaf in zip((F.relu, PF.relu), leaves, strict=True):
        base = leaf * 1
        relu(base[1:, ::2], inplace=True)
        base.pow(2).sum().backward()
    torch.testing.assert_close(leaves[1].grad, leaves[0].grad)


def test_in_place_on_an_inference_tensor():
    with torch.inference_mode():
        x = torch.randn(10)
        assert PF.relu(x, inplace=True) is x
    for function in (F.relu, PF.relu):
        with pytest.raises(RuntimeError, match="outside InferenceMode"):
            function(x, inplace=True)


def keeps_a_mask():
    """Whether the kernels under test have one."""
    (one,) = [k for k in registry.kernels("relu", "forward") if (k.backend, k.algorithm) == (BACKEND, "direct")]
    return one.supports(PointwiseProblem("relu", "forward", 1, device=DEVICE, mask=True)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("inplace", [False, True], ids=["", "in place"])
@pytest.mark.parametrize("layout", ["dense", "transposed", "channels_last", "strided", "scalar", "empty"])
def test_what_is_kept_for_backward(layout, inplace, dtype):
    """A bit per element where there is a mask, else the result; with strange gradients, of every order, and batched."""
    x, saved = LAYOUTS[layout]().to(dtype), []
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    given = torch.empty_strided(x.shape, x.stride(), dtype=dtype, device=x.device).copy_(leaves[0])
    expected = F.relu(leaves[1])
    with (
        pycv.use(backend=BACKEND),
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t),
    ):
        y = PF.relu(given, inplace)
    kept = [t for t in saved if t.dtype is torch.uint8]
    assert [t.numel() for t in kept] == ([-(-x.numel() // 8)] if keeps_a_mask() else [])
    assert torch.equal(y, expected)
    grads = torch.randn(3, *x.shape, dtype=dtype)
    for g in (grads[0], grads.movedim(0, -1).contiguous()[..., 1], grads[:1, ...].expand(3, *x.shape)[2]):
        ours, torchs = (
            torch.autograd.grad(out, leaf, g, retain_graph=True)
            for out, leaf in zip((y, expected), leaves, strict=True)
        )
        assert torch.equal(ours[0], torchs[0])
    g = grads[0].clone().requires_grad_()
    (first,) = torch.autograd.grad(y, leaves[0], g, create_graph=True)
    (second,) = torch.autograd.grad(first, g, grads[1])
    assert torch.equal(second, torch.ops.aten.threshold_backward(grads[1], expected.detach(), 0))
    (batched,) = torch.autograd.grad(y, leaves[0], grads, is_grads_batched=True)
    assert torch.equal(batched, torch.where(expected.detach() > 0, grads, 0))


def test_gradients_of_every_order_and_layout():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    with pycv.use(backend=BACKEND):
        assert gradients_hold(PF.relu, (x,))
        (grad,) = torch.autograd.grad(PF.relu(x), x, torch.ones(4, 3, dtype=torch.float64).t())
        assert torch.equal(grad, (x > 0).double())
        (grad,) = torch.autograd.grad(PF.relu(x).sum(), x)
        assert torch.equal(grad, (x > 0).double())


def test_backward_runs_under_the_settings_of_forward():
    x = torch.randn(5, requires_grad=True)
    with pycv.use(backend=BACKEND):
        y = PF.relu(x)
    with pycv.use(backend="torch"), registry.record() as calls:
        y.sum().backward()
    assert [call.choice.kernel.backend for call in calls] == [BACKEND]


@pytest.mark.parametrize("bad", [None, 1.0, [1.0]])
def test_bad_input_raises_as_torch(bad):
    with pytest.raises(TypeError, match="must be Tensor"):
        PF.relu(bad)


def test_watched():
    x = torch.randn(3, 4)
    assert torch.equal(torch.vmap(PF.relu)(x), F.relu(x))
    assert torch.equal(torch.func.jvp(PF.relu, (x,), (x,))[1], F.relu(x))
    assert torch.equal(torch.compile(PF.relu, fullgraph=True, backend="eager")(x), F.relu(x))
    assert "aten::relu" in str(torch.jit.trace(PF.relu, x).graph)
    with torch.autocast(DEVICE, dtype=torch.bfloat16), registry.record() as calls:
        assert PF.relu(x).dtype == torch.float32
    assert len(calls) == 1
    kept = []
    torch.func.grad(lambda x: (kept.append(x * 2), x.sum())[1])(x)  # a wrapper that outlives its transform
    assert torch.equal(PF.relu(kept[0]), F.relu(kept[0]))
    with torch.no_grad():
        assert torch.equal(PF.relu(kept[0]), F.relu(kept[0]))
