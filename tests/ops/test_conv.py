"""What surrounds a convolution: gradients of every order, the library op, compilers, modes, settings and threads."""

import threading
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import pycv
from pycv import functional as PF
from pycv import registry, settings
from pycv.ops import conv as conv_op

from ..backend import BACKEND, DEVICE, FOR_GPUS, STANDIN, for_cpu, inductor
from ..seed import sliced
from .agreement import gradients_hold

D = dict(dtype=torch.float64, requires_grad=True)
ALGORITHMS = ("direct", "im2col", *(("implicit_gemm",) if FOR_GPUS else ()))  # of any geometry


def operands(transposed=False, batch=2):
    """Input, weight (2 groups), bias and residual of a 'same' convolution, double."""
    x, b = torch.randn(batch, 4, 5, 6, **D), torch.randn(6, **D)
    w = torch.randn(4, 3, 3, 2, **D) if transposed else torch.randn(6, 2, 3, 2, **D)
    return x, w, b, torch.randn(batch, 6, 5, 6, **D)


def last(t):
    return t.detach().to(memory_format=torch.channels_last).requires_grad_()


def permuted(t):
    return t.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()


CASES = {
    "same": lambda x, w, b, r: PF.conv2d(x, w, b, padding="same", groups=2),
    "strided": lambda x, w, b, r: PF.conv2d(x, w, b, stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
    "no bias": lambda x, w, b, r: PF.conv2d(x, w, groups=2),
    "epilogue": lambda x, w, b, r: PF.conv2d(x, w, b, padding="same", groups=2, residual=r, activation="relu"),
}


LAYOUTS = {"nchw": lambda t: t, "nhwc": last, "permuted": permuted}


@pytest.mark.parametrize(("case", "layout", "algorithm"), sliced(product(CASES, LAYOUTS, ALGORITHMS), 6, id="-".join))
def test_gradients_of_gradients(case, layout, algorithm):
    x, w, b, r = operands()  # a batch of one could not be permuted
    inputs = (LAYOUTS[layout](x), LAYOUTS[layout](w), b, LAYOUTS[layout](r))
    with pycv.use(backend=BACKEND, algorithm=algorithm):
        assert gradients_hold(CASES[case], inputs)


@pytest.mark.parametrize("name", ["conv1d", "conv3d", "conv_transpose1d", "conv_transpose3d"])
def test_gradients_of_gradients_of_other_ranks(name):
    rank = int(name[-2])
    x, w = torch.randn(1, 4, *(4, 3, 3)[:rank], **D), torch.randn(4, 2, *(2,) * rank, **D)
    with pycv.use(backend=BACKEND):
        assert gradients_hold(lambda x, w: getattr(PF, name)(x, w, stride=2, padding=1, groups=2), (x, w))


@for_cpu
@pytest.mark.parametrize("layout", [lambda t: t, last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(("filter", "tile"), [(3, "split-f2"), (3, "split-f4"), (5, "s2d-f2"), (7, "s2d-f4")])
def test_strided_winograd_gradients(filter, tile, layout):
    """Each of the three passes by itself where it has the tile."""
    x, w = layout(torch.randn(1, 2, 7, 6, **D)), layout(torch.randn(2, 2, filter, filter, **D))
    b = torch.randn(2, **D)

    def function(x, w, b):
        return PF.conv2d(x, w, b, stride=2, padding=filter // 2)

    with pycv.use(backend="cpu", prefer=f"winograd/{tile}"), registry.record() as calls:
        assert gradients_hold(function, (x, w, b))
    used = {call.choice.problem.pass_ for call in calls if call.choice.kernel.variant == tile}
    assert used == {"forward", "grad_input"} | ({"grad_weight"} if "split" in tile else set())


@pytest.mark.parametrize("layout", [lambda t: t, last], ids=["nchw", "nhwc"])
def test_transposed_gradients_of_gradients(layout):
    x, w, b, _ = operands(transposed=True, batch=1)

    def function(x, w, b):
        return PF.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2)

    with pycv.use(backend=BACKEND):
        assert gradients_hold(function, (layout(x), layout(w), b))


@pytest.mark.skipif(STANDIN, reason="the stand-in for a GPU has no complex tensors")
def test_complex_gradients():
    x, w = (torch.randn(*s, dtype=torch.complex128, requires_grad=True) for s in [(1, 2, 3, 3), (3, 2, 2, 2)])
    for function in (PF.conv2d, lambda x, w: PF.conv_transpose2d(x, w.transpose(0, 1), stride=2)):
        assert gradients_hold(function, (x, w))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pass_", ["forward", "grad_input", "grad_weight"])
def test_library_op(pass_, layout):
    x, w, b, _ = (t.detach().requires_grad_() for t in operands())
    x, w, grad_output = map(LAYOUTS[layout], (x, w, torch.randn(2, 6, 5, 5, **D)))
    a, other = {"forward": (x, w), "grad_input": (grad_output, w), "grad_weight": (grad_output, x)}[pass_]
    geometry = ([5, 6], [3, 2], [5, 5], [1, 1], [1, 0], [1, 1], 2)
    for bias, relu in ((None, False), (b, True)):
        if bias is not None and pass_ != "forward":
            continue
        arguments = (a, other, bias, None, pass_, *geometry, relu, "")
        torch.library.opcheck(torch.ops.pycv.convolution.default, arguments)


@pytest.mark.parametrize("backend", [BACKEND, "torch"])
@pytest.mark.parametrize("formats", [(torch.channels_last, None), (None, torch.channels_last), (None, None)])
@pytest.mark.parametrize("pass_", ["forward", "grad_input", "grad_weight"])
def test_library_op_lays_results_out_as_its_fake_says(pass_, formats, backend):
    x, w, grad_output = torch.randn(2, 6, 9, 8), torch.randn(4, 6, 3, 3), torch.randn(2, 4, 9, 8)
    given = {"forward": (x, w), "grad_input": (grad_output, w), "grad_weight": (grad_output, x)}[pass_]
    a, b = (t if f is None else t.to(memory_format=f) for t, f in zip(given, formats, strict=True))
    geometry = ([9, 8], [3, 3], [9, 8], [1, 1], [1, 1], [1, 1], 1)
    with pycv.use(backend=backend):
        text = settings.current_text()
    arguments = (a, b, None, None, pass_, *geometry, False, text)
    torch.library.opcheck(torch.ops.pycv.convolution.default, arguments, test_utils="test_faketensor")


@pytest.mark.parametrize("transposed", [False, True])
def test_strides_far_longer_than_the_image(transposed):
    """Only phases that have a position count: there would be 4e6 of them here, or more than memory holds."""
    name = "conv_transpose2d" if transposed else "conv2d"
    longest = 2**40 if BACKEND == "cpu" and not transposed else 2**20  # where torch and GPUs do not overflow
    for stride, padding in ((2000, 0), (longest, 0), (3, 1), (7, 2)):
        shapes = ((1, 2, 1, 1), (2, 3, 4, 3)) if transposed else ((1, 2, 5, 6), (3, 2, 4, 3))
        padding = 0 if transposed else padding
        ours = [torch.randn(shape, **D) for shape in shapes]
        torchs = [t.detach().cpu().requires_grad_() for t in ours]
        expected = getattr(F, name)(*torchs, None, stride, padding)
        wanted = torch.autograd.grad(expected.sum(), torchs)
        for algorithm in ("direct", "im2col") if BACKEND == "cpu" else (None,):
            with pycv.use(algorithm=algorithm):
                y = getattr(PF, name)(*ours, None, stride, padding)
                torch.testing.assert_close(y.cpu(), expected)
                torch.testing.assert_close([g.cpu() for g in torch.autograd.grad(y.sum(), ours)], [*wanted])


def test_residual_has_to_be_where_the_input_is():
    x, w = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 1, 1)
    with pytest.raises(RuntimeError, match=rf"expected residual on {DEVICE}(:0)?, but got meta"):
        PF.conv2d(x, w, residual=torch.randn(2, 4, 5, 5, device="meta"))
    with pytest.raises(RuntimeError, match=rf"expected residual on {DEVICE}(:0)?, but got meta"):
        PF.conv_transpose2d(x, w.transpose(0, 1), residual=torch.randn(2, 4, 5, 5, device="meta"))


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_residual_has_to_be_a_tensor(name):
    x, w = torch.randn(2, 3, 5, 5), torch.randn(3, 3, 1, 1)
    for input in (x, x[0]):
        with pytest.raises(TypeError, match="residual must be a Tensor, not float"):
            getattr(PF, name)(input, w, residual=1.0)
        with pytest.raises(TypeError, match="residual must be a Tensor, not float"), FlopCounterMode(display=False):
            getattr(PF, name)(input, w, residual=1.0)


@pytest.mark.parametrize("backend", ["aot_eager", inductor])
def test_compiles_as_one_graph_forward_and_backward(backend):
    x, w, b, r = (t.detach().float().requires_grad_() for t in operands())

    def block(x, w, b, r):
        return PF.conv2d(x, w, b, padding="same", groups=2, residual=r, activation="relu")

    y, expected = torch.compile(block, fullgraph=True, backend=backend)(x, w, b, r), block(x, w, b, r)
    grad_output = torch.randn_like(expected)
    torch.testing.assert_close(y, expected)
    for got, wanted in zip(
        torch.autograd.grad(y, (x, w, b, r), grad_output),
        torch.autograd.grad(expected, (x, w, b, r), grad_output),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_compiled_code_carries_its_settings_into_backward():
    x, w, b, _ = (t.detach().float().requires_grad_() for t in operands())
    compiled = torch.compile(lambda *a: PF.conv2d(*a, groups=2), fullgraph=True, backend="aot_eager")
    for algorithm in ("direct", "im2col", "direct"):
        with registry.record() as calls:
            with pycv.use(backend=BACKEND, algorithm=algorithm):
                y = compiled(x, w, b)
            y.sum().backward()
        assert [call.choice.kernel.algorithm for call in calls if "conv" in call.choice.problem.op] == [algorithm] * 3


def test_library_op_tells_a_channel_slice_from_the_whole():
    """The gradients of three filters, and of one of them: same strides, same filter size, another number of filters."""
    x, grad = torch.randn(2, 4, 6, 6), torch.randn(2, 3, 4, 4)
    sizes = ([6, 6], [3, 3], [4, 4], [1, 1], [0, 0], [1, 1])
    for part in (grad, grad[:, 2:]):
        gradient = torch.ops.pycv.convolution(part, x, None, None, "grad_weight", *sizes, 1, False, "")
        expected = torch.nn.grad.conv2d_weight(x, (part.shape[1], 4, 3, 3), part)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("algorithm", ["direct", "im2col"])
def test_backward_and_double_backward_run_under_the_settings_of_forward(algorithm):
    """Outside the block, and in the threads that autograd runs them in."""
    x, w, _, _ = operands()
    with pycv.use(backend=BACKEND, algorithm=algorithm):
        y = PF.conv2d(x, w, groups=2)
    with registry.record() as calls:
        (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        torch.autograd.grad(grad.square().sum(), w)
    assert {call.choice.problem.pass_ for call in calls} == {"forward", "grad_input", "grad_weight"}
    assert {call.choice.kernel.algorithm for call in calls} == {algorithm}


def test_two_threads_under_different_settings_at_once():
    x, w, _, _ = operands()
    failures = []

    def work(algorithm, start):
        start.wait()
        for _ in range(50):
            with pycv.use(backend=BACKEND, algorithm=algorithm):
                y = PF.conv2d(x, w, groups=2)
            if y.grad_fn.call.choice.kernel.algorithm != algorithm:
                failures.append(algorithm)

    start = threading.Barrier(2)
    threads = [threading.Thread(target=work, args=(name, start)) for name in ("direct", "im2col")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_what_watches_gets_the_op_that_serves_it():
    x, w, b, _ = (t.detach().float().requires_grad_() for t in operands())
    with FlopCounterMode(display=False) as counter:
        PF.conv2d(x, w, b, groups=2)
    assert counter.get_total_flops() == 2 * 2 * 6 * 3 * 5 * 2 * 6  # n k oh ow c/g taps
    images = torch.randn(3, 2, 4, 5, 6)
    batched = torch.vmap(lambda image: PF.conv2d(image, w, b, groups=2))(images)
    torch.testing.assert_close(batched, torch.stack([F.conv2d(image, w, b, groups=2) for image in images]))
    torch.testing.assert_close(
        torch.func.grad(lambda w: PF.conv2d(x, w, groups=2).sum())(w),
        torch.autograd.grad(F.conv2d(x, w, groups=2).sum(), w)[0],
    )
    tangents = torch.func.jvp(lambda x: PF.conv2d(x, w, groups=2), (x,), (torch.ones_like(x),))[1]
    torch.testing.assert_close(tangents, F.conv2d(torch.ones_like(x), w, groups=2))
    with torch._subclasses.FakeTensorMode() as mode:
        fake = PF.conv2d(mode.from_tensor(x), mode.from_tensor(w), groups=2)
    assert fake.shape == (2, 6, 3, 5)
    assert PF.conv2d(x.to("meta"), w.to("meta"), groups=2).shape == (2, 6, 3, 5)


def test_autocast_and_inference_mode():
    x, w, b, _ = (t.detach().float().requires_grad_() for t in operands())
    with torch.autocast(DEVICE, torch.bfloat16):
        y = PF.conv2d(x, w, b, groups=2)
        expected = F.conv2d(x, w, b, groups=2)
    assert y.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)
    grads = [torch.autograd.grad(t.float().sum(), (x, w, b)) for t in (y, expected)]
    torch.testing.assert_close(grads[0], grads[1], rtol=2e-2, atol=5e-2)
    with torch.inference_mode(), pycv.use(backend=BACKEND):
        torch.testing.assert_close(PF.conv2d(x, w, b, groups=2), F.conv2d(x, w, b, groups=2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64, torch.int64], ids=str)
def test_other_dtypes_run_in_torch_and_the_log_says_so(dtype):
    x, w = torch.randint(-4, 5, (2, 4, 6, 6)).to(dtype), torch.randint(-4, 5, (3, 4, 3, 3)).to(dtype)
    if DEVICE == "cuda" and dtype in (torch.bfloat16, torch.float16):
        pytest.skip("the CUDA kernels take it")
    with registry.record() as calls:
        y = PF.conv2d(x, w, padding=1)
    assert torch.equal(y, F.conv2d(x, w, padding=1))
    assert [call.choice.kernel.backend for call in calls] == ["torch"]
    assert any("dtype" in reason for reason in calls[0].choice.rejected)
    if FOR_GPUS and dtype in (torch.bfloat16, torch.float16):
        return  # its kernels take them where somebody asks
    with pytest.raises(pycv.UnsupportedError, match="dtype"), pycv.use(backend=BACKEND):
        PF.conv2d(x, w, padding=1)


@pytest.mark.parametrize("pass_", ["forward", "grad_input", "grad_weight"])
def test_torch_as_the_backend_of_one_pass(pass_):
    """Also where torch has no such padding: 'same' of an even filter."""
    x, w, b, _ = operands()
    with pycv.use(algorithm={f"conv2d.{pass_}": "torch"}), registry.record() as calls:
        y = PF.conv2d(x, w, b, padding="same", groups=2)
        grads = torch.autograd.grad(y.sin().sum(), (x, w, b))
    by_pass = {
        call.choice.problem.pass_: call.choice.kernel.backend for call in calls if "conv" in call.choice.problem.op
    }
    assert by_pass == {p: "torch" if p == pass_ else DEVICE for p in ("forward", "grad_input", "grad_weight")}
    expected = F.conv2d(x, w, b, padding="same", groups=2)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(grads, torch.autograd.grad(expected.sin().sum(), (x, w, b)))


def test_workspace_limit_bounds_im2col():
    x, w = torch.randn(4, 16, 40, 40), torch.randn(16, 16, 3, 3)
    made = []
    little = 1 << 20 if BACKEND == "triton" else 1 << 16  # Triton's holds one image at least, of 832 KB
    for limit in (little, 1 << 28):
        with pycv.use(backend=BACKEND, algorithm="im2col", workspace_limit=limit), registry.record() as calls:
            torch.testing.assert_close(PF.conv2d(x, w), F.conv2d(x, w), rtol=1e-4, atol=1e-4)
        made.append(calls[0].choice.plan.workspace_bytes)
    assert made[0] <= made[1] <= 1 << 28


def test_calls_are_known_by_everything_that_changes_them():
    """Same shapes, one thing changed at a time: each gives torch's result, whatever was remembered before."""
    x, w, b = torch.randn(2, 4, 9, 9), torch.randn(8, 4, 3, 3), torch.randn(8)
    conv_op._calls.clear()
    for _ in range(2):
        for kwargs in (
            {}, dict(stride=2), dict(stride=(2, 1)), dict(padding=1), dict(padding="same"), dict(dilation=2),
            dict(bias=b), dict(stride=[2, 2]),
        ):  # fmt: skip
            torch.testing.assert_close(PF.conv2d(x, w, **kwargs), F.conv2d(x, w, **kwargs), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(PF.conv2d(x, w[:, :2], groups=2), F.conv2d(x, w[:, :2], groups=2))
        torch.testing.assert_close(PF.conv2d(x, w, activation="relu"), F.conv2d(x, w).relu(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_a_tensor_among_the_arguments_counts_by_its_value(name):
    x, w, stride = torch.randn(2, 4, 9, 9), torch.randn(4, 4, 3, 3), torch.tensor(1)
    for value in (1, 2):
        stride.fill_(value)
        assert getattr(PF, name)(x, w, stride=stride).shape == getattr(F, name)(x, w, stride=value).shape
