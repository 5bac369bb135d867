"""The C++ GEMM kernel at plan level against float64: integers exactly, real data within a few ulp of sum |a| |b|."""

import pytest
import torch

from pycv import _cpu

from .test_conv_kernels import aligned_bytes, integers, normal

DTYPES = {"f32": torch.float32, "f64": torch.float64}


def strided(values, kind):
    """A copy of a (batch, rows, columns) tensor: row- or column-major, or with gaps in every axis."""
    if kind == "row":
        return values.clone()
    if kind == "col":
        return values.transpose(1, 2).contiguous().transpose(1, 2)
    b, m, n = values.shape
    buffer = torch.full((b, 2 * m + 1, 3 * n + 2), torch.nan, dtype=values.dtype)
    view = buffer[:, 1 : 2 * m + 1 : 2, 2 : 3 * n + 2 : 3]
    return view.copy_(values)


def make_plan(a, b, out, residual=None, epilogue=(), threads=1, limit=1 << 28):
    batch, m, k = a.shape
    return _cpu.gemm_plan(
        "packed", "f64" if a.dtype == torch.float64 else "f32", batch, m, b.shape[2], k,
        list(a.stride()), list(b.stride()), list(out.stride()),
        list(residual.stride()) if residual is not None else [0, 0, 0],
        "bias" in epilogue, residual is not None, "relu" in epilogue, threads, limit,
    )  # fmt: skip


def run(a, b, out, residual=None, bias=None, alpha=1.0, beta=1.0, epilogue=(), threads=1, limit=1 << 28, prepare=False):
    plan = make_plan(a, b, out, residual, epilogue, threads, limit)
    operand = b
    if prepare and plan.prepared_weight_bytes:
        operand = aligned_bytes(plan.prepared_weight_bytes)
        plan.prepare_weight(b.data_ptr(), operand.data_ptr())
    workspace = aligned_bytes(plan.workspace_bytes)
    plan.run(
        a.data_ptr(), operand.data_ptr(), out.data_ptr(), bias.data_ptr() if bias is not None else 0,
        residual.data_ptr() if residual is not None else 0, alpha, beta, workspace.data_ptr(), operand is not b,
    )  # fmt: skip


def check(
    batch, m, n, k, dtype="f32", kinds=("row", "row", "row", "row"), epilogue=(), alpha=1.0, beta=1.0, threads=1,
    limit=1 << 28, data=integers, prepare=False,
):  # fmt: skip
    generator = torch.Generator().manual_seed(m + 1000 * n + 77 * k)
    dtype = DTYPES[dtype]
    a = strided(data((batch, m, k), dtype, generator), kinds[0])
    b = strided(data((batch, k, n), dtype, generator), kinds[1])
    out = strided(torch.full((batch, m, n), torch.nan, dtype=dtype), kinds[2])
    residual = strided(data((batch, m, n), dtype, generator), kinds[3]) if "residual" in epilogue else None
    bias = data((n,), dtype, generator) if "bias" in epilogue else None
    run(a, b, out, residual, bias, alpha, beta, epilogue, threads, limit, prepare)
    expected = alpha * (a.double() @ b.double())
    bound = torch.zeros_like(expected)
    if data is not integers:
        eps = torch.finfo(dtype).eps
        bound = (a.double().abs() @ b.double().abs()) * abs(alpha) * eps * (8 + k**0.5) + 8 * eps
    if residual is not None:
        expected += beta * residual.double()
    if bias is not None:
        expected += bias.double()
    if "relu" in epilogue:
        expected = expected.relu()
    wrong = ~((out.double() - expected).abs() <= bound)
    assert not wrong.any(), (
        f"{wrong.sum().item()} of {wrong.numel()} elements wrong, first at {wrong.nonzero()[0].tolist()}: "
        f"{out[wrong][0].item()} instead of {expected[wrong][0].item()}"
    )


SIZES = [
    (1, 1, 1), (1, 10, 33), (1, 100, 300), (3, 5, 7), (5, 3, 2), (14, 32, 8), (15, 33, 9), (13, 31, 17), (28, 64, 40),
    (29, 65, 41), (64, 1, 50), (1, 1, 200), (100, 17, 3), (7, 260, 5), (130, 70, 400), (6, 16, 1), (40, 2, 700),
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=lambda s: "m{}n{}k{}".format(*s))
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_integers(size, dtype):
    for kinds in (("row",) * 4, ("col",) * 4, ("row", "col", "row", "row"), ("any",) * 4, ("col", "row", "col", "any")):
        for prepare in (False, True):
            check(1, *size, dtype=dtype, kinds=kinds, prepare=prepare)


@pytest.mark.parametrize("epilogue", [("bias",), ("relu",), ("residual",), ("bias", "residual", "relu")], ids="+".join)
def test_epilogue(epilogue):
    for size in SIZES:
        for kinds in (("row",) * 4, ("row", "col", "col", "row"), ("any",) * 4):
            check(1, *size, kinds=kinds, epilogue=epilogue, alpha=2.0, beta=-3.0)
            check(1, *size, kinds=kinds, epilogue=epilogue, alpha=0.5, beta=1.0, dtype="f64", prepare=True)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads(threads):
    for size in (*SIZES, (300, 200, 100), (2, 3000, 300), (3000, 3, 200), (1, 9, 200000)):
        check(1, *size, threads=threads, epilogue=("bias", "residual"))
        check(3, *size, threads=threads, kinds=("row", "col", "row", "row"))


def test_batches():
    for batch in (1, 2, 7, 20):
        for threads in (1, 3):
            check(batch, 9, 20, 30, threads=threads, epilogue=("bias", "relu"))
            check(batch, 1, 40, 30, threads=threads, prepare=True)


def test_operands_in_place():
    """Few rows and columns: rows along k or side by side, whole vectors, several depth blocks, page strides."""
    for size in ((33, 48, 600), (20, 64, 1024), (17, 1024, 40), (250, 16, 520)):
        for kinds in (("row",) * 4, ("col", "row", "row", "row")):
            for dtype in DTYPES:
                check(3, *size, dtype=dtype, kinds=kinds, epilogue=("bias", "residual"))
                check(1, *size, dtype=dtype, kinds=kinds, threads=2, prepare=True)


def test_small_workspace():
    for size in ((130, 200, 400), (1, 100, 300), (300, 3, 500)):
        for threads in (1, 3):
            check(1, *size, limit=1 << 14, threads=threads, kinds=("any",) * 4)
            check(1, *size, limit=1 << 14, threads=threads)


def test_error_on_real_data():
    for size in ((1, 100, 3000), (130, 70, 400), (65, 33, 2000)):
        for dtype in DTYPES:
            check(2, *size, data=normal, dtype=dtype, epilogue=("bias", "residual"), alpha=1.7, beta=0.3)


@pytest.mark.parametrize("size", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0), (1, 5, 0)])
def test_empty(size):
    for batch in (0, 1, 2):
        for threads in (1, 3):
            check(batch, *size, epilogue=("bias", "residual", "relu"), beta=2.0, threads=threads)
            check(batch, *size, threads=threads, prepare=True)


def test_beta_zero_ignores_nan_in_the_residual():
    for m, n, k in ((1, 5, 3), (20, 40, 30), (20, 40, 0)):
        a, b = torch.ones(1, m, k), torch.ones(1, k, n)
        out, residual = torch.full((1, m, n), torch.nan), torch.full((1, m, n), torch.nan)
        run(a, b, out, residual, beta=0.0)
        assert (out == k).all()


def test_expanded_operands():
    generator = torch.Generator().manual_seed(1)
    a = integers((1, 30, 1), torch.float32, generator).expand(4, 30, 50)
    b = integers((1, 1, 40), torch.float32, generator).expand(4, 50, 40)
    residual = integers((1, 1, 40), torch.float32, generator).expand(4, 30, 40)
    for threads in (1, 3):
        out = torch.full((4, 30, 40), torch.nan)
        run(a, b, out, residual, threads=threads)
        assert torch.equal(out.double(), a.double() @ b.double() + residual.double())


def test_non_finite_values_and_relu_keep_torchs_meaning():
    a, b = torch.ones(1, 20, 40), torch.ones(1, 40, 50)
    a[0, 3, 5], b[0, 7, 9] = torch.nan, torch.inf
    b[0, 8, 9] = -torch.inf
    out = torch.empty(1, 20, 50)
    run(a, b, out, epilogue=("relu",))
    expected = (a @ b).relu()
    assert torch.equal(out.isnan(), expected.isnan()) and torch.equal(out.nan_to_num(), expected.nan_to_num())


def test_repeated_runs_are_bit_identical():
    a, b = torch.randn(1, 200, 3000), torch.randn(1, 3000, 100)
    outs = [torch.empty(1, 200, 100) for _ in range(3)]
    for out in outs:
        run(a, b, out, threads=2)
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2])
