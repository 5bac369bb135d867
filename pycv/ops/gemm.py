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

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import registry, settings
from ..problem import GemmProblem, Matrix
from ._dispatch import DTYPES, choose, deterministic, library_takes, plain, remember, threads, wants_torch, watched
from ._library import LIB, define
from ._workspace import workspace
from .channel_sum import channel_sum
from .relu import relu_grad_input

_KERNEL_DTYPES = {
    "cpu": (torch.float32, torch.float64),
    "cuda": (torch.float32, torch.float64, torch.float16, torch.bfloat16),
}
_NAMES = {
    "mm": ("input", "mat2"),
    "bmm": ("input", "mat2"),
    "matmul": ("input", "other"),
    "addmm": ("mat1", "mat2"),
    "linear": ("input", "weight"),
    "gemm": ("a", "b"),
}
_RANKS = {"mm": (2, 2), "bmm": (3, 3), "addmm": (2, 2), "linear": (None, 2)}
_TORCH: dict[str, Callable] = {"mm": torch.mm, "bmm": torch.bmm, "matmul": torch.matmul}


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
    call = _known(op, arguments, settings.current(), prepared is not None)
    if call is None:
        return _torch_gemm(op, *arguments)
    if a.is_neg() or b.is_neg() or (bias is not None and bias.is_neg()) or (residual is not None and residual.is_neg()):
        return _torch_gemm(op, *arguments)
    try:
        if (
            call.run is not None
            and torch.is_grad_enabled()
            and (
                b.requires_grad
                or a.requires_grad
                or (bias is not None and bias.requires_grad)
                or (residual is not None and residual.requires_grad)
            )
        ):
            return _apply_gemm(a, b, bias, residual, (alpha, beta, transposed, relu, call))
        run = _run if registry.recorders else _run_unrecorded
        return run(call, op, arguments, prepared)
    except RuntimeError:
        if _all_plain(arguments):
            raise
        return _torch_gemm(op, *arguments)  # not memory after all, though it has sizes and strides


# ------------------------------------------------------------------------------------------------ direct path


@dataclass(frozen=True)
class _Call:
    """What follows from sizes, strides and settings: worked out once per key."""

    choice: registry.Choice
    settings: settings.Settings
    run: Any  # a callable, the plan's; None where torch runs it
    launch: Any  # the same for alpha = beta = 1
    shape: tuple[int, ...]  # of the result
    workspace_bytes: int
    copies: bool  # an operand does not lie as its matrix: _matrices copies it first
    bias_broadcasts: bool  # the bias is not one value per column: it takes the residual's place


_calls: dict[tuple, _Call] = {}


def _known(op: str, arguments: tuple, current: settings.Settings, kept: bool = False) -> _Call | None:
    """The call for such arguments under these settings, made if it is the first; None for what has no plain memory."""
    a, b, bias, residual, alpha, beta, transposed, relu = arguments
    try:
        key = (
            op, type(a), a.shape, a.stride(), a.dtype, a.device,
            type(b), b.shape, b.stride(), b.dtype, b.device,
            None if bias is None else (type(bias), bias.shape, bias.stride(), bias.dtype, bias.device),
            None if residual is None else (
                type(residual), residual.shape, residual.stride(), residual.dtype, residual.device,
                beta == 0,
            ),
            alpha == 0, transposed, relu, kept, id(current), threads(), deterministic(),
        )  # fmt: skip
    except (AttributeError, RuntimeError):  # no tensor, or one without sizes or strides
        return None
    call = _calls.get(key)
    if call is None and _all_plain(arguments):
        shape = _result_shape(op, a, b, bias, residual, transposed)
        planned = _planned(shape, a, b, bias, residual, alpha, beta, transposed, relu, current, kept)
        call = remember(_calls, key, planned)
    return call


def _all_plain(arguments: tuple) -> bool:
    return all(x is None or plain(x) for x in arguments[:4])


def _planned(shape, a, b, bias, residual, alpha, beta, transposed, relu, current, kept) -> _Call:
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
    choice = choose(a.device, problem, current, kept)
    plan = choice.plan
    run, launch, workspace_bytes = (plan.run, plan.launch, plan.workspace_bytes) if plan else (None, None, 0)
    return _Call(choice, current, run, launch, shape, workspace_bytes, copies, bias_broadcasts)


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
    return x is not None and matrix is not None and x.data_ptr() != matrix.data_ptr()


def _layout(x: Tensor) -> Matrix:
    return Matrix.of(tuple(x.shape), x.stride())


def _run(call: _Call, op: str, arguments: tuple, prepared=None) -> Tensor:
    if not registry.recorders:
        return _run_unrecorded(call, op, arguments, prepared)
    with registry.timed(call.choice):
        return _run_unrecorded(call, op, arguments, prepared)


def _run_unrecorded(call: _Call, op: str, arguments: tuple, prepared) -> Tensor:
    if call.run is None:
        return _torch_gemm(op, *arguments)
    a, b, bias, residual, alpha, beta, transposed, _ = arguments
    if call.bias_broadcasts:
        bias, residual, beta = None, bias, 1.0
    packed = None if prepared is None else prepared.get(b, call.choice)
    if call.copies:
        a, _, residual = _matrices(call.shape, a, b, residual, transposed)
        bias = None if bias is None else bias.contiguous()
    out = a.new_empty(*call.shape)  # the sizes one by one: torch takes 0.4 µs longer to read a tuple
    _memory, address = workspace(call.workspace_bytes, a)
    pointers = (
        a.data_ptr(), b.data_ptr() if packed is None else packed.data_ptr(), out.data_ptr(),
        0 if bias is None else bias.data_ptr(), 0 if residual is None else residual.data_ptr(),
    )  # fmt: skip
    if alpha == 1 and beta == 1:
        call.launch(*pointers, address, packed is not None)
    else:
        call.run(*pointers, alpha, beta, address, packed is not None)
    return out


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
        if x is not b and not expands_to(x.shape, shape):
            raise RuntimeError(f"{op}: {name} of shape {tuple(x.shape)} does not broadcast to the result's {shape}")
    if bias is not None and residual is not None and bias.shape != shape[-1:]:
        raise RuntimeError(f"{op}: beside a residual, bias must have shape ({n},), got {tuple(bias.shape)}")
    return shape


def expands_to(shape, target) -> bool:
    return len(shape) <= len(target) and all(
        s in (1, t) for s, t in zip(reversed(shape), reversed(target), strict=False)
    )


# -------------------------------------------------------------------------------------------------- gradients


class _Gemm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, bias, residual, others):
        alpha, beta, transposed, relu, call = others
        run = _run if registry.recorders else _run_unrecorded
        y = run(call, "gemm", (a, b, bias, residual, alpha, beta, transposed, relu), None)
        _setup_context(ctx, (a, b, bias, residual, alpha, beta, transposed, relu, call.settings), y)
        return y

    @staticmethod
    def backward(ctx, grad_output):
        with settings.applied(ctx.context[-1]):
            return *_gradients(ctx, grad_output, partial(gemm, "gemm"), relu_grad_input, _sum_to), None


_apply_gemm = super(torch.autograd.Function, _Gemm).apply  # without its Python part, which serves functorch


def _setup_context(ctx, inputs, output) -> None:
    a, b, bias, residual, alpha, beta, transposed, relu, current = inputs
    a_saved, b_saved = a if b.requires_grad else None, b if a.requires_grad else None
    ctx.save_for_backward(a_saved, b_saved, output if relu else None)
    bias_shape = None if bias is None else bias.shape
    residual_shape = None if residual is None else residual.shape
    ctx.context = (b.dim() == 3, bias_shape, residual_shape, alpha, beta, transposed, relu, current)


def _gradients(ctx, g, gemm, relu_grad_input, sum_to) -> tuple:
    """The gradients of a, b, bias and residual, by the given (differentiable) functions."""
    a, b, y = ctx.saved_tensors
    batched, bias_shape, residual_shape, alpha, beta, transposed, relu, _ = ctx.context
    needs_a, needs_b, needs_bias, needs_residual, *_ = ctx.needs_input_grad
    grad_a = grad_b = grad_bias = grad_residual = None
    if relu:
        g = relu_grad_input(y, g)
    if needs_a:
        grad_a = gemm(g, b, alpha=alpha, transposed=not transposed)
    if needs_b:
        left, right = (a, g) if batched else (_as_rows(a), _as_rows(g))
        if transposed:
            left, right = right, left
        grad_b = gemm(left.mT, right, alpha=alpha)
    if needs_bias:
        grad_bias = sum_to(g, bias_shape)
    if needs_residual:
        grad_residual = sum_to(g, residual_shape)
        grad_residual = grad_residual if beta == 1 else beta * grad_residual
    return grad_a, grad_b, grad_bias, grad_residual


def _as_rows(x: Tensor) -> Tensor:
    """One matrix, by reshape: the older vmap, which batches gradients, cannot flatten."""
    return x if x.dim() == 2 else x.reshape(x.shape[:-1].numel(), x.shape[-1])


def _sum_to(g: Tensor, shape: torch.Size) -> Tensor:
    """The sum of g over the axes along which ``shape`` was broadcast to it."""
    if g.shape == shape:
        return g
    if g.shape[-1:] == shape:
        return channel_sum(_as_rows(g))
    return g.sum_to_size(shape)


# ----------------------------------------------------------------------------------------- watched: library op


def _watched_gemm(op, a, b, bias, residual, alpha, beta, transposed, relu) -> Tensor:
    """What runs while a compiler or mode looks on: ``torch.ops.pycv.gemm`` where we have a kernel, else torch's op."""
    operands = (a, b, bias, residual)
    if wants_torch() or not all(x is None or library_takes(x) for x in operands):
        return _torch_gemm(op, *operands, alpha, beta, transposed, relu)
    device = a.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        a, b, bias, residual = (_autocast(x, dtype) for x in operands)
        with torch.autocast(device, enabled=False):
            return gemm(op, a, b, bias, residual, alpha, beta, transposed, relu)
    if a.dtype not in _KERNEL_DTYPES.get(device, ()):
        return _torch_gemm(op, *operands, alpha, beta, transposed, relu)
    _result_shape(op, *operands, transposed)
    return _library_gemm(settings.current_text(), *operands, alpha, beta, transposed, relu)


def _autocast(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """As torch casts the operands of its lower-precision list: floating point, but float64 is left alone."""
    return x.to(dtype) if x is not None and x.is_floating_point() and x.dtype != torch.float64 else x


def _library_gemm(text, a, b, bias=None, residual=None, alpha=1.0, beta=1.0, transposed=False, relu=False) -> Tensor:
    return torch.ops.pycv.gemm(a, b, bias, residual, alpha, beta, transposed, relu, text)


def _library_run(*arguments) -> Tensor:
    operands, text = arguments[:-1], arguments[-1]
    call = _known("gemm", operands, settings.from_text(text))
    return _torch_gemm("gemm", *operands) if call is None else _run(call, "gemm", operands)


def _library_fake(a, b, bias, residual, alpha, beta, transposed, relu, text) -> Tensor:
    return a.new_empty(_result_shape("gemm", a, b, bias, residual, transposed))


def _library_backward(ctx, grad_output) -> tuple:
    """Mask and sums are torch's here: the compiler fuses them with their neighbours."""
    library_gemm = partial(_library_gemm, ctx.context[-1])
    return *_gradients(ctx, grad_output, library_gemm, _torch_relu_grad_input, Tensor.sum_to_size), *[None] * 5


def _torch_relu_grad_input(y: Tensor, grad_output: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(grad_output, y, 0)


def _library_vmap(info, in_dims, *arguments) -> tuple[Tensor, int]:
    return torch.vmap(lambda *x: _torch_gemm("gemm", *x[:-1]), in_dims)(*arguments), 0


def _library_flops(a, b, *_, out_shape=None, **__) -> int:
    return 2 * torch.Size(a).numel() * out_shape[-1]


define(
    "gemm(Tensor a, Tensor b, Tensor? bias, Tensor? residual, float alpha, float beta, bool transposed, bool relu, "
    "str settings) -> Tensor",
    _library_run,
    _library_fake,
    _library_flops,
    _setup_context,
    _library_backward,
)
torch.library.register_vmap("pycv::gemm", _library_vmap, lib=LIB)
