"""mm, bmm, matmul, addmm and linear against torch's own and against float64, forward, gradients and all the paths."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing._internal.common_methods_invocations import op_db

import pycv
from pycv import functional as PF
from pycv import registry

from ..backend import BACKEND, DEVICE, inductor
from ..seed import properties
from .agreement import gradients_hold, outcome

TWINS = {"mm": PF.mm, "bmm": PF.bmm, "matmul": PF.matmul, "addmm": PF.addmm, "nn.functional.linear": PF.linear}
OPS = [op for op in op_db if op.name in TWINS and op.variant_test_name != "triton_optimized"]
DTYPES = (torch.float32, torch.float64)


@pytest.fixture
def on_cpu():
    """Only our kernels may run, and every call is logged."""
    with pycv.use(backend=BACKEND), registry.record() as calls:
        yield calls


def kernels(calls):
    return {call.choice.kernel.backend for call in calls}


def leaves(*tensors):
    return [x for x in tensors if isinstance(x, torch.Tensor) and x.requires_grad]


def assert_near_float64(actual, expected, reduction):
    """``expected`` is the float64 result; the tolerance is torch's, scaled with the square root of the sum's length."""
    rtol, atol = (1.3e-6, 1e-5) if actual.dtype == torch.float32 else (1e-7, 1e-7)
    torch.testing.assert_close(
        actual.double(), expected, rtol=10 * rtol, atol=atol * max(reduction, 1) ** 0.5, equal_nan=True
    )


# ------------------------------------------------------------------------------------ torch's own test inputs


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name + op.variant_test_name)
def test_samples_of_torch(op, dtype, on_cpu):
    for sample in op.sample_inputs(DEVICE, dtype, requires_grad=True):
        inputs = leaves(sample.input, *sample.args)
        y = TWINS[op.name](sample.input, *sample.args, **sample.kwargs)
        expected = op.op(sample.input, *sample.args, **sample.kwargs)
        assert (y.shape, y.dtype, y.stride()) == (expected.shape, expected.dtype, expected.stride())
        assert_near_float64(y, expected.double(), sample.args[0].shape[0])
        g = torch.randn_like(y)
        grads = torch.autograd.grad(y, inputs, g)
        for grad, x, reference in zip(grads, inputs, torch.autograd.grad(expected, inputs, g), strict=True):
            assert grad.shape == x.shape
            assert_near_float64(grad, reference.double(), y.numel())
    assert on_cpu
    assert kernels(on_cpu) == {BACKEND}


ones = torch.ones
BAD_INPUTS = {
    "mm": [
        (ones(2, 5), ones(4, 3)), (ones(5), ones(5, 3)), (ones(2, 5), ones(5)), (ones(2, 5), ones(5, 3).double()),
        (None, ones(5, 3)), (ones(2, 5), [1.0]), (ones(2, 5).bool(), ones(5, 3).bool()),
    ],
    "bmm": [
        (ones(2, 5), ones(5, 3)), (ones(2, 5, 3), ones(5, 3)), (ones(2, 5, 3), ones(2, 4, 3)),
        (ones(2, 5, 3), ones(3, 3, 3)), (ones(2, 5, 3), ones(2, 3, 3).double()), (None, ones(2, 3, 3)),
    ],
    "matmul": [
        (ones(()), ones(3)), (ones(3), ones(())), (ones(4), ones(3)), (ones(4, 2), ones(3)), (ones(4), ones(3, 2)),
        (ones(4, 5), ones(3, 2)), (ones(4, 5, 6), ones(3, 2)), (ones(4, 5, 6), ones(3)), (ones(3), ones(4, 5, 6)),
        (ones(4, 5, 6), ones(4, 7, 6)), (ones(4, 5, 6), ones(3, 6, 6)), (ones(2, 4, 5, 6), ones(3, 6, 6)),
        (ones(4), ones(4).double()), (ones(3, 4), ones(4).double()), (ones(3, 4, 5), ones(3, 5, 4).double()),
        (ones(3, 5), 3.0), (None, ones(3)),
    ],
    "addmm": [
        (ones(7), ones(2, 5), ones(5, 3)), (ones(1, 2, 3), ones(2, 5), ones(5, 3)),
        (ones(3).double(), ones(2, 5), ones(5, 3)), (ones(3), ones(2, 5), ones(5, 3).double()),
        (ones(3), ones(2, 5), ones(4, 3)), (ones(3), ones(2), ones(4, 3)), (ones(3), ones(2, 4), ones(4)),
        (None, ones(2, 5), ones(5, 3)),
    ],
    "nn.functional.linear": [
        (ones(2, 5), ones(3, 4)), (ones(7, 2, 5), ones(3, 4), ones(3)), (ones(5), ones(3, 4)),
        (ones(2, 5), ones(2, 5, 5)), (ones(()), ones(5, 1)), (ones(2, 5), ones(3, 5), ones(4)),
        (ones(2, 5), ones(3, 5).double()), (ones(2, 5), ones(3, 5), ones(3).double()), ([1.0], ones(3, 5)),
        (ones(2, 5), None), (ones(2, 5), ones(3, 5), 2.0),
    ],
}  # fmt: skip
TORCH = {op.name: op.op for op in OPS}


@pytest.mark.parametrize("name", TWINS)
def test_bad_input_raises_as_torch(name):
    for arguments in BAD_INPUTS[name]:
        with pytest.raises(Exception) as expected:
            TORCH[name](*arguments)
        with pytest.raises(type(expected.value)):
            TWINS[name](*arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PF.linear(ones(2, 5), ones(3, 4)), r"cannot be multiplied \(2x5 and 4x3\).*weight \(3, 4\)"),
        (lambda: PF.mm(ones(2, 5), ones(4, 3)), r"cannot be multiplied \(2x5 and 4x3\).*mat2 \(4, 3\)"),
        (lambda: PF.mm(ones(5), ones(5, 3)), r"input must be a matrix.*\(5,\)"),
        (lambda: PF.bmm(ones(2, 5, 3), ones(2, 4, 3)), r"mat2 tensor to be: \[2, 3\] but got: \[2, 4\]"),
        (lambda: PF.addmm(ones(7), ones(2, 5), ones(5, 3)), r"input of shape \(7,\)"),
        (lambda: PF.matmul(ones(4), ones(3)), r"input of shape \(4,\) and other of shape \(3,\)"),
        (lambda: PF.linear(ones(2, 5), ones(3, 5), ones(4)), r"bias of shape \(4,\)"),
        (lambda: PF.linear(ones(2, 5), ones(3, 5).double()), r"input and weight .* torch.float32 and torch.float64"),
    ],
)
def test_messages_name_argument_and_value(call, message):
    with pytest.raises(RuntimeError, match=message):
        call()


def test_addmm_of_nothing_is_its_input_whatever_alpha():
    """As in BLAS, though 0 times infinity is NaN."""
    for alpha in (torch.inf, -torch.inf, torch.nan, 2.0):
        arguments = (torch.randn(4, 5), ones(4, 0), ones(0, 5))
        ours, torchs = (function(*arguments, beta=0.5, alpha=alpha) for function in (PF.addmm, torch.addmm))
        assert torch.equal(ours, torchs)
    integers = (ones(4, 5).int(), ones(4, 0).int(), ones(0, 5).int())
    assert type(outcome(PF.addmm, *integers, alpha=2.5)) is type(outcome(torch.addmm, *integers, alpha=2.5))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
def test_linear_with_one_row_of_weights(batch):
    """A weight without an axis of outputs, which torch's result then lacks, too."""
    x, w = torch.randn(*batch, 4, requires_grad=True), torch.randn(4, requires_grad=True)
    residual = torch.randn(batch)
    y, expected = PF.linear(x, w), F.linear(x, w)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(*(torch.autograd.grad(t.sum(), (x, w)) for t in (y, expected)))
    torch.testing.assert_close(PF.linear(x, w, residual=residual, activation="relu"), torch.relu(expected + residual))
    with pytest.raises(RuntimeError, match=r"residual of shape \(7,\)"):
        PF.linear(x, w, residual=ones(7))
    assert type(outcome(PF.linear, x, ones(5))) is type(outcome(F.linear, x, ones(5))) is RuntimeError


def test_unknown_activation():
    with pytest.raises(ValueError, match="activation='tanh'"):
        PF.linear(ones(2, 5), ones(3, 5), activation="tanh")


def test_residual_has_to_be_a_tensor():
    for weight in (ones(3, 5), ones(5)):
        with pytest.raises(TypeError, match="residual must be a Tensor, not float"):
            PF.linear(ones(2, 5), weight, residual=1.0)


# ------------------------------------------------------------------------------------------- values and strides


def integers(draw, *shape):
    """Small integers, so that every sum is exact in float32; dense, transposed, strided or expanded by chance."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def dense(*sizes):
        return torch.randint(-4, 5, sizes, generator=generator).float()

    layout = draw(st.sampled_from(("dense", "transposed", "strided", "expanded")))
    if layout == "transposed" and len(shape) > 1:
        return dense(*shape[:-2], shape[-1], shape[-2]).mT
    if layout == "strided":
        return dense(*shape[:-1], 3 * shape[-1])[..., 1::3]
    if layout == "expanded":
        axis = draw(st.integers(0, len(shape) - 1))
        return dense(*shape[:axis], 1, *shape[axis + 1 :]).expand(shape)
    return dense(*shape)


size = st.one_of(st.integers(0, 5), st.integers(6, 70))


@given(st.data(), size, size, size)
@properties(150)
def test_matrix_products_are_exact_on_integers(data, m, n, k):
    a, b, c = (integers(data.draw, *shape) for shape in ((m, k), (k, n), (m, n)))
    with pycv.use(backend=BACKEND):
        assert torch.equal(PF.mm(a, b).double(), a.double() @ b.double())
        expected = torch.addmm(c.double(), a.double(), b.double(), beta=-2, alpha=3)
        assert torch.equal(PF.addmm(c, a, b, beta=-2, alpha=3).double(), expected)


@given(st.data(), st.lists(st.integers(0, 4), max_size=3), st.lists(st.integers(0, 4), max_size=3), size, size, size)
@properties(150)
def test_batched_products_are_exact_on_integers(data, a_batch, b_batch, m, n, k):
    for i in range(1, min(len(a_batch), len(b_batch)) + 1):  # make the batches broadcastable
        if a_batch[-i] != b_batch[-i]:
            (a_batch if data.draw(st.booleans()) else b_batch)[-i] = 1
    a = integers(data.draw, *a_batch, m, k)
    b = integers(data.draw, *b_batch, k, n)
    expected = a.double() @ b.double()
    with pycv.use(backend=BACKEND):
        y = PF.matmul(a, b)
    assert torch.equal(y.double(), expected)
    assert y.is_contiguous()


@given(
    st.data(),
    st.lists(st.integers(0, 6), max_size=3),
    size,
    size,
    st.sampled_from((None, "bias")),
    st.sampled_from((None, "full", "rows", "scalar")),
    st.sampled_from((None, "relu")),
    st.booleans(),
)
@properties(150)
def test_linear_with_its_epilogue_is_exact_on_integers(data, batch, n, k, bias, residual, activation, double):
    shape = (*batch, n)
    x, w = integers(data.draw, *batch, k), integers(data.draw, n, k)
    bias = None if bias is None else integers(data.draw, n)
    residual = {
        None: lambda: None,
        "full": lambda: integers(data.draw, *shape),
        "rows": lambda: integers(data.draw, n),
        "scalar": lambda: torch.tensor(2.0),
    }[residual]()
    operands = [None if t is None else (t.double() if double else t) for t in (x, w, bias, residual)]
    x64, w64, bias64, residual64 = (None if t is None else t.double() for t in operands)
    expected = F.linear(x64, w64, bias64)
    expected = expected if residual64 is None else expected + residual64
    expected = expected if activation is None else expected.relu()
    with pycv.use(backend=BACKEND):
        y = PF.linear(operands[0], operands[1], operands[2], residual=operands[3], activation=activation)
    assert torch.equal(y.double(), expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads(threads, on_cpu):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a, b = torch.randn(150, 70), torch.randn(70, 131)
        assert_near_float64(PF.mm(a, b), a.double() @ b.double(), 70)
    finally:
        torch.set_num_threads(before)


def test_addmm_does_not_read_what_is_multiplied_by_zero():
    nan = torch.full((4, 5), torch.nan)
    a, b = torch.randn(4, 3), torch.randn(3, 5)
    torch.testing.assert_close(PF.addmm(nan, a, b, beta=0), a @ b)
    assert torch.equal(PF.addmm(ones(4, 5), torch.full((4, 3), torch.nan), b, alpha=0), ones(4, 5))
    assert PF.addmm(nan, a, b).isnan().all()


def test_biases_that_torch_broadcasts(on_cpu):
    x, w = torch.randn(4, 5), torch.randn(3, 5)
    for bias in (torch.randn(1), torch.randn(4, 3), torch.randn(()), torch.randn(6)[::2]):
        torch.testing.assert_close(PF.linear(x, w, bias), F.linear(x, w, bias))
    with pytest.raises(RuntimeError, match=r"bias must have shape \(3,\)"):
        PF.linear(x, w, torch.randn(1), residual=torch.randn(4, 3))
    assert kernels(on_cpu) == {BACKEND}


# ---------------------------------------------------------------------------------------------- out=, dtypes


@pytest.mark.parametrize("name", ["mm", "bmm", "matmul", "addmm"])
def test_out(name):
    op = next(op for op in OPS if op.name == name)
    for sample in op.sample_inputs(DEVICE, torch.float64):
        expected = op.op(sample.input, *sample.args, **sample.kwargs)
        for out in (torch.full_like(expected, torch.nan), torch.empty(0, dtype=torch.float64)):
            version = out._version
            result = TWINS[name](sample.input, *sample.args, **sample.kwargs, out=out)
            assert result is out
            assert out._version > version
            torch.testing.assert_close(out, expected)


def test_out_follows_torch_in_layout_overlap_and_errors():
    a, b = torch.randn(4, 4), torch.randn(4, 4)
    out = torch.empty(4, 4).t()
    assert PF.mm(a, b, out=out).stride() == (1, 4)
    torch.testing.assert_close(out, a @ b)
    expected = a @ b
    torch.testing.assert_close(PF.mm(a, b, out=a), expected)
    assert PF.mm(a, b, out=torch.empty(2, 2)).shape == (4, 4)  # with torch's warning, on stderr
    with pytest.raises(RuntimeError, match="dtype"):
        PF.mm(a, b, out=torch.empty(4, 4, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="automatic differentiation"):
        PF.mm(a.requires_grad_(), b, out=torch.empty(4, 4))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.bfloat16, torch.complex64], ids=str)
def test_other_dtypes_run_in_torch_and_the_log_says_so(dtype):
    if DEVICE == "cuda" and dtype in (torch.bfloat16, torch.float16):
        pytest.skip("the CUDA kernels take it")
    a, b = torch.arange(12).reshape(3, 4).to(dtype), torch.arange(8).reshape(4, 2).to(dtype)
    with registry.record() as calls:
        assert torch.equal(PF.mm(a, b), torch.mm(a, b))
        assert torch.equal(PF.matmul(a, b[:, 0]), torch.matmul(a, b[:, 0]))
        assert torch.equal(PF.addmm(b[:3], a, b, alpha=2, beta=3), torch.addmm(b[:3], a, b, alpha=2, beta=3))
        assert torch.equal(PF.linear(a, b.t(), b[0]), F.linear(a, b.t(), b[0]))
    assert kernels(calls) == {"torch"}
    assert all("dtype" in " ".join(call.choice.rejected) for call in calls)


def test_backend_that_cannot_is_refused():
    with pycv.use(backend=BACKEND), pytest.raises(pycv.UnsupportedError, match="i32"):
        PF.mm(ones(2, 2).int(), ones(2, 2).int())


# -------------------------------------------------------------------------------------------------- gradients


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


GRADCHECKED = {
    "mm": lambda: (PF.mm, double(3, 4), double(4, 2)),
    "transposed": lambda: (lambda a, b: PF.mm(a.t(), b.t()), double(4, 3), double(2, 4)),
    "expanded": lambda: (lambda a, b: PF.mm(a.expand(3, 4), b), double(1, 4), double(4, 2)),
    "strided": lambda: (lambda a, b: PF.mm(a[:, ::2], b[1:]), double(3, 8), double(5, 2)),
    "bmm": lambda: (PF.bmm, double(2, 3, 4), double(2, 4, 2)),
    "dot": lambda: (PF.matmul, double(4), double(4)),
    "mv": lambda: (PF.matmul, double(2, 3, 4), double(4)),
    "broadcast": lambda: (PF.matmul, double(2, 1, 3, 4), double(3, 4, 2)),
    "one b": lambda: (PF.matmul, double(2, 3, 4), double(1, 4, 2)),
    "addmm": lambda: (lambda c, a, b: PF.addmm(c, a, b, beta=0.5, alpha=-2), double(3, 2), double(3, 4), double(4, 2)),
    "addmm rows": lambda: (lambda c, a, b: PF.addmm(c, a, b, beta=3), double(2), double(3, 4), double(4, 2)),
    "linear": lambda: (PF.linear, double(2, 3, 4), double(5, 4), double(5)),
    "linear 1-D": lambda: (PF.linear, double(4), double(5, 4), double(5)),
    "linear no rows": lambda: (PF.linear, double(0, 4), double(5, 4), double(5)),
    "linear broadcast bias": lambda: (PF.linear, double(3, 4), double(5, 4), double(3, 5)),
    "linear epilogue": lambda: (
        lambda x, w, b, r: PF.linear(x, w, b, residual=r, activation="relu"),
        double(2, 3, 4), double(5, 4), double(5), double(3, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GRADCHECKED)
def test_gradients(case, on_cpu):
    torch.manual_seed(0)
    f, *inputs = GRADCHECKED[case]()
    assert gradients_hold(f, inputs)
    assert kernels(on_cpu) == {BACKEND}


def test_gradients_only_where_asked(on_cpu):
    x, w, b = torch.randn(3, 4), torch.randn(5, 4, requires_grad=True), torch.randn(5)
    y = PF.linear(x, w, b)
    on_cpu.clear()
    y.sum().backward()
    assert len(on_cpu) == 1
    torch.testing.assert_close(w.grad, ones(3, 5).t() @ x)


def test_backward_runs_under_the_settings_of_forward():
    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    with pycv.use(backend="torch"):
        y = PF.linear(x, w)
    with pycv.use(backend=BACKEND), registry.record() as calls:
        PF.linear(x, w)
    algorithm = calls[0].choice.kernel.algorithm
    with pycv.use(backend=BACKEND, algorithm=algorithm, workspace_limit=12345):
        z = PF.linear(x, w)
    (gx,) = torch.autograd.grad(z.sum(), x, create_graph=True)
    with registry.record() as calls:
        gx.sum().backward()
        z.sum().backward()
        y.sum().backward()
    assert kernels(calls) == {BACKEND}  # torch's own op differentiates itself


# ------------------------------------------------------------------------------------------- the watched paths


def block(x, w, b, r):
    y = PF.linear(x, w, b, residual=r, activation="relu")
    return PF.matmul(y.unsqueeze(0), PF.mm(w, w.t()).unsqueeze(0)).squeeze(0)


def block_inputs():
    """In f64: of a gradient of squares rounding in f32 leaves less than is asked for here."""
    shapes = ((6, 4), (5, 4), (5,), (6, 5))
    return [torch.randn(*shape, requires_grad=True, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("backend", ["aot_eager", inductor])
def test_compiled_whole_forward_and_backward(backend):
    torch._dynamo.reset()
    inputs = block_inputs()
    with registry.record() as calls, pycv.use(backend=BACKEND):
        y = torch.compile(block, fullgraph=True, backend=backend)(*inputs)
        grads = torch.autograd.grad(y.square().sum(), inputs)
    assert kernels(calls) == {BACKEND}
    expected = block(*inputs)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(grads, torch.autograd.grad(expected.square().sum(), inputs))


def test_compiled_for_changing_sizes():
    torch._dynamo.reset()
    compiled = torch.compile(PF.linear, fullgraph=True, backend="aot_eager", dynamic=True)
    w, b = torch.randn(5, 4, requires_grad=True), torch.randn(5, requires_grad=True)
    for rows in (3, 7, 20):
        x = torch.randn(2, rows, 4)
        torch.testing.assert_close(compiled(x, w, b), F.linear(x, w, b))
        compiled(x, w, b).sum().backward()


def test_compiled_code_follows_the_settings():
    """Compiled anew when they change; the graph carries them to a backward outside the block."""
    torch._dynamo.reset()
    compiled = torch.compile(PF.linear, fullgraph=True, backend="aot_eager")
    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    for backend in ("torch", BACKEND, "torch"):
        with registry.record() as calls:
            with pycv.use(backend=backend):
                y = compiled(x, w)
            y.sum().backward()
        assert len(calls) == 3
        assert kernels(calls) == {backend}
    pycv.set_default(backend="torch")
    try:
        with registry.record() as calls:
            compiled(x, w)
    finally:
        pycv.set_default(backend=None)
    assert kernels(calls) == {"torch"}
    with registry.record() as calls:
        compiled(x, w)
    assert kernels(calls) == {DEVICE}


def test_library_op():
    f32 = [torch.randn(*shape, requires_grad=True) for shape in ((2, 3, 4), (5, 4), (5,), (3, 5))]
    f64 = [torch.randn(*shape, dtype=torch.float64) for shape in ((2, 3, 4), (2, 4, 5))]
    f64[0] = f64[0].mT.contiguous().mT.requires_grad_()
    op = torch.ops.pycv.gemm.default
    torch.library.opcheck(op, (*f32, 1.0, 1.0, True, True, ""))
    torch.library.opcheck(op, (*f64, None, None, 0.5, 1.0, False, False, f'{{"backend": "{BACKEND}"}}'))


def test_export_holds_only_ops_of_torch():
    class Net(torch.nn.Module):
        def forward(self, x, w, b):
            return PF.matmul(PF.linear(x, w, b, activation="relu"), w)

    program = torch.export.export(Net(), (torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)))
    assert "pycv" not in str(program.graph)


def test_traced_and_functional_modes_see_torch():
    x, w, b = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)
    assert "aten::linear" in str(torch.jit.trace(PF.linear, (x, w, b)).graph)
    batched = torch.randn(6, 3, 4)
    torch.testing.assert_close(torch.vmap(PF.linear, (0, None, None))(batched, w, b), F.linear(batched, w, b))
    jacobian = torch.func.jacrev(lambda x: PF.mm(x, w.t()))(x)
    torch.testing.assert_close(jacobian, torch.func.jacrev(lambda x: torch.mm(x, w.t()))(x))
    _, tangent = torch.func.jvp(lambda x: PF.linear(x, w), (x,), (ones(3, 4),))
    torch.testing.assert_close(tangent, F.linear(ones(3, 4), w))


def test_dispatch_modes_see_the_library_op():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    names = []
    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    with Names():
        PF.linear(x, w, activation="relu").sum().backward()
    assert names.count("pycv.gemm.default") == 2
    torch.testing.assert_close(x.grad, torch.autograd.grad(F.linear(x, w).relu().sum(), x)[0])


def test_autocast_casts_as_torch():
    x, w, b = torch.randn(3, 4), torch.randn(5, 4, requires_grad=True), torch.randn(5)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        y, expected = PF.linear(x, w, b), F.linear(x, w, b)
        assert PF.mm(x.double(), w.double().t()).dtype == torch.float64
        assert PF.addmm(b, x, w.t()).dtype == PF.matmul(x, w[0]).dtype == torch.bfloat16
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    assert w.grad.dtype == torch.float32


def test_inference_mode(on_cpu):
    with torch.inference_mode():
        x, w = torch.randn(3, 4), torch.randn(5, 4)
        y = PF.linear(x, w)
        assert y.is_inference()
        torch.testing.assert_close(y, F.linear(x, w))


def test_subclasses_and_lazy_negation():
    class Tagged(torch.Tensor):
        pass

    x, w = torch.randn(3, 4).as_subclass(Tagged), torch.randn(5, 4)
    assert type(PF.linear(x, w)) is Tagged
    negated = torch.randn(3, 4, dtype=torch.complex64).conj().imag
    assert negated.is_neg()
    torch.testing.assert_close(PF.linear(negated, w), F.linear(negated, w))


# ------------------------------------------------------------------------------------------- prepared weights


class Prepared:
    """What pycv/nn/prepared.py does, in small: packs once and counts how often it is asked."""

    def __init__(self):
        self.packed, self.asked = None, 0

    def get(self, weight, choice):
        self.asked += 1
        if self.packed is None and choice.plan.prepared_weight_bytes:
            self.packed = torch.empty(choice.plan.prepared_weight_bytes, dtype=torch.uint8)
            choice.plan.prepare_weight(weight.data_ptr(), self.packed.data_ptr())
        return self.packed


def test_prepared_weight():
    from pycv.ops.linear import linear

    x, w, b = torch.randn(37, 50), torch.randn(41, 50), torch.randn(41)
    prepared = Prepared()
    for _ in range(2):
        y = linear(x, w, b, prepared=prepared)
        assert_near_float64(y, F.linear(x.double(), w.double(), b.double()), 50)
    assert prepared.asked == 2
