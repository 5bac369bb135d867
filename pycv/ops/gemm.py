"""out = act(alpha * a @ b + beta * residual + bias): what mm, bmm, matmul, addmm and linear come down to.

``a`` is (..., m, k) against one ``b`` (k, n), or (batch, m, k) against (batch, k, n); with ``transposed``, b is given
as (n, k) or (batch, n, k), as the weight of linear is. All leading axes of ``a`` become rows of one matrix. Operands
may have any strides, so transposed and expanded ones are used where they lie; the result is contiguous.

The gradients are gemms again, and so are theirs: grad_a = alpha * g @ b^T, grad_b = alpha * a^T @ g, grad_bias = the
column sums of g, grad_residual = beta * g, with g = grad_output where the activation let it through.

``op`` is the public op that asks: it decides which ranks are allowed, what an error message calls the operands, and
which of torch's own ops runs what has no kernel ("gemm": a gradient, any of it).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import registry, settings
from ..problem import GemmProblem, Matrix
from ._dispatch import DTYPES, context_key, library_takes, plain, remember, wants_torch, watched
from ._library import LIB
from .relu import relu_grad_input

_ALIGNMENT = 64  # bytes, of the workspace
_KERNEL_DTYPES = (torch.float32, torch.float64)
_NAMES = {
    "mm": ("input", "mat2"),
    "bmm": ("input", "mat2"),
    "matmul": ("input", "other"),
    "addmm": ("mat1", "mat2"),
    "linear": ("input", "weight"),
    "gemm": ("a", "b"),
}
_RANKS = {"mm": (2, 2), "bmm": (3, 3), "addmm": (2, 2), "linear": (None, 2)}
_TORCH = {"mm": torch.mm, "bmm": torch.bmm, "matmul": torch.matmul}


def gemm(
    op: str,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transposed: bool = False,
    relu: bool = False,
    prepared: Any = None,
) -> Tensor:
    """The result of the formula above.

    ``bias`` and ``residual`` are broadcast to it; the residual is not read where beta is 0. ``prepared`` may hold
    packed weights: ``prepared.get(b, choice)`` is None or a uint8 tensor (pycv/nn/prepared.py).
    Raises RuntimeError, naming the operands, where shapes or dtypes do not fit together.
    """
    arguments = (a, b, bias, residual, alpha, beta, transposed, relu)
    if watched():
        return _watched_gemm(op, *arguments)
    if not (plain(a) and plain(b) and (bias is None or plain(bias)) and (residual is None or plain(residual))):
        return _torch_gemm(op, *arguments)
    call = _call(op, *arguments)
    if (
        call.choice.plan is not None
        and torch.is_grad_enabled()
        and any(x is not None and x.requires_grad for x in (a, b, bias, residual))
    ):
        return _Gemm.apply(*arguments, call)
    return _run(call, op, arguments, prepared)


# ------------------------------------------------------------------------------------------------ direct path


@dataclass(frozen=True)
class _Call:
    """What follows from sizes, strides and settings: worked out once per key."""

    choice: registry.Choice
    shape: tuple[int, ...]  # of the result
    workspace_bytes: int
    copies: bool  # an operand does not lie as its matrix: _matrices copies it first
    bias_broadcasts: bool  # the bias is not one value per column: it takes the residual's place


_calls: dict[tuple, _Call] = {}


def _call(op, a, b, bias, residual, alpha, beta, transposed, relu) -> _Call:
    current = settings.current()
    key = (
        op, a.shape, a.stride(), a.dtype, a.device, b.shape, b.stride(), b.dtype, b.device,
        None if bias is None else (bias.shape, bias.stride(), bias.dtype, bias.device),
        None if residual is None else (residual.shape, residual.stride(), residual.dtype, residual.device, beta == 0),
        alpha == 0, transposed, relu, context_key(current),
    )  # fmt: skip
    call = _calls.get(key)
    if call is None:
        shape = _result_shape(op, a, b, bias, residual, transposed)
        call = _planned(shape, a, b, bias, residual, alpha, beta, transposed, relu, current)
        remember(_calls, key, call)
    return call


def _planned(shape, a, b, bias, residual, alpha, beta, transposed, relu, current: settings.Settings) -> _Call:
    bias_broadcasts = bias is not None and bias.shape != shape[-1:]
    if bias_broadcasts:
        bias, residual, beta = None, bias, 1.0
    if beta == 0:
        residual = None
    a_matrix, b_matrix, residual_matrix = _matrices(shape, a, b, residual, transposed)
    copies = _copied(a, a_matrix) or _copied(residual, residual_matrix) or not (bias is None or bias.is_contiguous())
    batch, m, k = a_matrix.shape
    problem = GemmProblem(
        m=m,
        n=shape[-1],
        k=0 if alpha == 0 else k,  # as in BLAS: the product is not read, NaN or not
        batch=batch,
        dtype=DTYPES.get(a.dtype, str(a.dtype)),
        device=a.device.type,
        a=_layout(a_matrix),
        b=_layout(b_matrix),
        residual=None if residual_matrix is None else _layout(residual_matrix),
        epilogue=("bias",) * (bias is not None) + ("residual",) * (residual is not None) + ("relu",) * relu,
    )
    choice = registry.choose(problem, current, torch.get_num_threads())
    workspace_bytes = choice.plan.workspace_bytes if choice.plan is not None else 0
    return _Call(choice, shape, workspace_bytes, copies, bias_broadcasts)


def _matrices(shape, a, b, residual, transposed) -> tuple[Tensor, Tensor, Tensor | None]:
    """The operands as (batch, rows, columns): views, or copies where leading axes do not collapse into one."""
    b = b.detach().mT if transposed else b.detach()
    if b.dim() == 3:
        return a, b, None if residual is None else residual.detach().expand(shape)
    rows = torch.Size(shape[:-1]).numel()
    if residual is not None:
        residual = residual.detach().expand(shape).reshape(1, rows, shape[-1])
    return a.detach().reshape(1, rows, a.shape[-1]), b.unsqueeze(0), residual


def _copied(x: Tensor | None, matrix: Tensor | None) -> bool:
    return x is not None and x.data_ptr() != matrix.data_ptr()


def _layout(x: Tensor) -> Matrix:
    return Matrix.of(tuple(x.shape), x.stride())


def _run(call: _Call, op: str, arguments: tuple, prepared=None) -> Tensor:
    run = _run_torch if call.choice.plan is None else _run_plan
    if registry.recorders:
        with registry.timed(call.choice):
            return run(call, op, arguments, prepared)
    return run(call, op, arguments, prepared)


def _run_torch(call: _Call, op: str, arguments: tuple, prepared) -> Tensor:
    return _torch_gemm(op, *arguments)


def _run_plan(call: _Call, op: str, arguments: tuple, prepared) -> Tensor:
    a, b, bias, residual, alpha, beta, transposed, _ = arguments
    if call.bias_broadcasts:
        bias, residual, beta = None, bias, 1.0
    packed = None if prepared is None else prepared.get(b, call.choice)
    if call.copies:
        a, _, residual = _matrices(call.shape, a, b, residual, transposed)
        bias = None if bias is None else bias.contiguous()
    out = torch.empty(call.shape, dtype=a.dtype)
    workspace = _workspace(call.workspace_bytes) if call.workspace_bytes else None
    call.choice.plan.run(
        a.data_ptr(),
        b.data_ptr() if packed is None else packed.data_ptr(),
        out.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        0 if residual is None else residual.data_ptr(),
        alpha,
        beta,
        0 if workspace is None else workspace.data_ptr(),
        packed is not None,
    )
    return out


def _workspace(size: int) -> Tensor:
    """``size`` bytes, aligned."""
    memory = torch.empty(size + _ALIGNMENT, dtype=torch.uint8)
    return memory[-memory.data_ptr() % _ALIGNMENT :]


def _torch_gemm(op, a, b, bias, residual, alpha, beta, transposed, relu) -> Tensor:
    """The same from torch's own ops, exactly the one that was called where nothing is fused to it."""
    if op in _TORCH:
        return _TORCH[op](a, b)
    if op == "addmm":
        return torch.addmm(residual, a, b, beta=beta, alpha=alpha)
    if op == "linear":
        y = torch.nn.functional.linear(a, b, bias)
    else:
        y = alpha * torch.matmul(a, b.mT if transposed else b)
        y = y if bias is None else y + bias
    y = y if residual is None or beta == 0 else y + beta * residual
    return torch.relu(y) if relu else y


# ------------------------------------------------------------------------------------------------- validation


def _result_shape(op, a, b, bias, residual, transposed) -> tuple[int, ...]:
    """The shape of the result. Raises RuntimeError where an operand does not fit; nothing has been allocated yet."""
    names = _NAMES[op]
    for x, name, rank in zip((a, b), names, _RANKS.get(op, (None, None)), strict=True):
        if x.dim() == 0 or rank not in (None, x.dim()):
            expected = "at least 1-D" if rank is None else "a matrix" if rank == 2 else f"a {rank}D tensor"
            raise RuntimeError(f"{op}: {name} must be {expected}, got {x.dim()}-D tensor of shape {tuple(x.shape)}")
    k, n = (b.shape[-1], b.shape[-2]) if transposed else (b.shape[-2], b.shape[-1])
    if b.dim() == 3 and (a.shape[0] != b.shape[0] or a.shape[-1] != k):
        raise RuntimeError(
            f"Expected size for first two dimensions of {names[1]} tensor to be: [{a.shape[0]}, {a.shape[-1]}] "
            f"but got: [{b.shape[0]}, {k}]: {names[0]} has shape {tuple(a.shape)}"
        )
    if a.shape[-1] != k:
        rows = torch.Size(a.shape[:-1]).numel()
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({rows}x{a.shape[-1]} and {k}x{n}): "
            f"{names[0]} has shape {tuple(a.shape)}, {names[1]} {tuple(b.shape)}"
        )
    shape = (*a.shape[:-1], n)
    addends = ((bias, "bias"), (residual, "input" if op == "addmm" else "residual"))
    for x, name in ((b, names[1]), *addends):
        if x is None:
            continue
        if x.dtype != a.dtype:
            both = f"{names[0]} and {name}"
            raise RuntimeError(f"expected {both} to have the same dtype, but got {a.dtype} and {x.dtype}")
        if x.device != a.device:
            where = f"{names[0]} is on {a.device} and {name} on {x.device}"
            raise RuntimeError(f"Expected all tensors to be on the same device, but {where}")
        if x is not b and not _expands_to(x.shape, shape):
            raise RuntimeError(f"{op}: {name} of shape {tuple(x.shape)} does not broadcast to the result's {shape}")
    if bias is not None and residual is not None and bias.shape != shape[-1:]:
        raise RuntimeError(f"{op}: beside a residual, bias must have shape ({n},), got {tuple(bias.shape)}")
    return shape


def _expands_to(shape, target) -> bool:
    return len(shape) <= len(target) and all(
        s in (1, t) for s, t in zip(reversed(shape), reversed(target), strict=False)
    )


# -------------------------------------------------------------------------------------------------- gradients


class _Gemm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, bias, residual, alpha, beta, transposed, relu, call):
        arguments = (a, b, bias, residual, alpha, beta, transposed, relu)
        y = _run(call, "gemm", arguments)
        _setup_context(ctx, (*arguments, settings.current()), y)
        return y

    @staticmethod
    def backward(ctx, grad_output):
        with settings.applied(ctx.settings):
            return _gradients(ctx, grad_output, partial(gemm, "gemm"), relu_grad_input, _sum_to)


def _setup_context(ctx, inputs, output) -> None:
    a, b, bias, residual, ctx.alpha, ctx.beta, ctx.transposed, ctx.relu, ctx.settings = inputs
    needs_a, needs_b, *_ = ctx.needs_input_grad
    ctx.save_for_backward(a if needs_b else None, b if needs_a else None, output if ctx.relu else None)
    ctx.batched = b.dim() == 3
    ctx.bias_shape = None if bias is None else bias.shape
    ctx.residual_shape = None if residual is None else residual.shape


def _gradients(ctx, g, gemm, relu_grad_input, sum_to) -> tuple:
    """The gradients of the nine inputs of _Gemm and of the library op, by the given (differentiable) functions."""
    a, b, y = ctx.saved_tensors
    needs_a, needs_b, needs_bias, needs_residual, *_ = ctx.needs_input_grad
    grad_a = grad_b = grad_bias = grad_residual = None
    if ctx.relu:
        g = relu_grad_input(y, g)
    if needs_a:
        grad_a = gemm(g, b, alpha=ctx.alpha, transposed=not ctx.transposed)
    if needs_b:
        a, rows = (a, g) if ctx.batched else (_as_rows(a), _as_rows(g))
        left, right = (rows, a) if ctx.transposed else (a, rows)
        grad_b = gemm(left.mT, right, alpha=ctx.alpha)
    if needs_bias:
        grad_bias = sum_to(g, ctx.bias_shape)
    if needs_residual:
        grad_residual = sum_to(g, ctx.residual_shape)
        grad_residual = grad_residual if ctx.beta == 1 else ctx.beta * grad_residual
    return grad_a, grad_b, grad_bias, grad_residual, None, None, None, None, None


def _as_rows(x: Tensor) -> Tensor:
    return x if x.dim() == 2 else x.unsqueeze(0) if x.dim() == 1 else x.flatten(0, -2)


def _sum_to(g: Tensor, shape: torch.Size) -> Tensor:
    """The sum of g over the axes along which ``shape`` was broadcast to it; column sums are a gemm with ones."""
    if shape != g.shape[-1:]:
        return g.sum_to_size(shape)
    rows = _as_rows(g)
    ones = g.new_ones(1, 1).expand(1, rows.shape[0])
    return gemm("gemm", ones, rows).squeeze(0)


# ----------------------------------------------------------------------------------------- watched: library op


def _watched_gemm(op, a, b, bias, residual, alpha, beta, transposed, relu) -> Tensor:
    """What runs while a compiler or mode looks on: ``torch.ops.pycv.gemm`` where we have a kernel, else torch's op."""
    operands = (a, b, bias, residual)
    if wants_torch() or not all(x is None or library_takes(x) for x in operands):
        return _torch_gemm(op, *operands, alpha, beta, transposed, relu)
    device = a.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        cast = [_autocast(x, dtype) for x in operands]
        with torch.autocast(device, enabled=False):
            return gemm(op, *cast, alpha, beta, transposed, relu)
    if a.dtype not in _KERNEL_DTYPES or device != "cpu":
        return _torch_gemm(op, *operands, alpha, beta, transposed, relu)
    _result_shape(op, *operands, transposed)
    return _library_gemm(settings.current_text(), *operands, alpha, beta, transposed, relu)


def _autocast(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """As torch casts the operands of its lower-precision list: floating point, but float64 is left alone."""
    return x.to(dtype) if x is not None and x.is_floating_point() and x.dtype != torch.float64 else x


def _library_gemm(text, a, b, bias=None, residual=None, alpha=1.0, beta=1.0, transposed=False, relu=False) -> Tensor:
    return torch.ops.pycv.gemm(a, b, bias, residual, alpha, beta, transposed, relu, text)


def _library_run(*arguments) -> Tensor:
    *arguments, text = arguments
    with settings.applied(settings.from_text(text)):
        return _run(_call("gemm", *arguments), "gemm", arguments)


def _library_fake(a, b, bias, residual, alpha, beta, transposed, relu, text) -> Tensor:
    return a.new_empty(_result_shape("gemm", a, b, bias, residual, transposed))


def _library_backward(ctx, grad_output) -> tuple:
    """Mask and sums are torch's here: the compiler fuses them with their neighbours."""
    gemm = partial(_library_gemm, ctx.settings)
    return _gradients(ctx, grad_output, gemm, _torch_relu_grad_input, Tensor.sum_to_size)


def _torch_relu_grad_input(y: Tensor, grad_output: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(grad_output, y, 0)


def _library_vmap(info, in_dims, *arguments) -> tuple[Tensor, int]:
    return torch.vmap(lambda *x: _torch_gemm("gemm", *x[:-1]), in_dims)(*arguments), 0


LIB.define(
    "gemm(Tensor a, Tensor b, Tensor? bias, Tensor? residual, float alpha, float beta, bool transposed, bool relu, "
    "str settings) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
LIB.impl("gemm", _library_run, "CompositeExplicitAutograd")
torch.library.register_fake("pycv::gemm", _library_fake, lib=LIB)
torch.library.register_autograd("pycv::gemm", _library_backward, setup_context=_setup_context, lib=LIB)
torch.library.register_vmap("pycv::gemm", _library_vmap, lib=LIB)
