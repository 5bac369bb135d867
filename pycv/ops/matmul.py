"""mm, bmm, matmul and addmm: torch's rules for ranks, broadcasting and ``out``, on the one gemm of ops/gemm.py."""

from __future__ import annotations

import torch
from torch import Tensor

from ._dispatch import library_takes, plain, wants_torch, watched
from .gemm import gemm

_REAL = (int, float)


def mm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """See :func:`pycv.functional.mm`."""
    if out is not None and _needs_torch(out, input, mat2):
        return torch.mm(input, mat2, out=out)
    return _into(out, gemm("mm", input, mat2))


def bmm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """See :func:`pycv.functional.bmm`."""
    if out is not None and _needs_torch(out, input, mat2):
        return torch.bmm(input, mat2, out=out)
    return _into(out, gemm("bmm", input, mat2))


def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1, out: Tensor | None = None
) -> Tensor:
    """See :func:`pycv.functional.addmm`."""
    ours = isinstance(input, Tensor) and isinstance(beta, _REAL) and isinstance(alpha, _REAL)
    if ours and isinstance(mat1, Tensor) and mat1.dim() == 2 and mat1.shape[1] == 0:
        alpha = type(alpha)()  # there is no product to multiply: an alpha that is not finite would make NaN of it
    if not ours or (out is not None and _needs_torch(out, input, mat1, mat2)):
        return torch.addmm(input, mat1, mat2, beta=beta, alpha=alpha, out=out)
    return _into(out, gemm("addmm", mat1, mat2, None, input, alpha, beta))


def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """See :func:`pycv.functional.matmul`."""
    if not (library_takes(input) and library_takes(other)) or (watched() and wants_torch()):
        return torch.matmul(input, other, out=out)
    if out is not None and _needs_torch(out, input, other):
        return torch.matmul(input, other, out=out)
    return _into(out, _matmul(input, other))


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """1-D operands are one row or one column; a batch of ``a`` against one ``b`` is one tall matrix."""
    if a.dim() > 0 and b.dim() == 2:
        return gemm("matmul", a, b)
    if a.dim() == 0 or b.dim() == 0 or a.shape[-1] != b.shape[max(b.dim() - 2, 0)]:
        shapes = f"input of shape {tuple(a.shape)} and other of shape {tuple(b.shape)}"
        raise RuntimeError(f"matmul: {shapes} cannot be multiplied")
    if b.dim() == 1:
        return gemm("matmul", a, b.unsqueeze(-1)).squeeze(-1)
    if a.dim() == 1:
        return _matmul(a.unsqueeze(0), b).squeeze(-2)
    if b.shape[:-2].numel() == 1 and b.dim() <= a.dim():
        return gemm("matmul", a, b.reshape(b.shape[-2:]))
    try:
        batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except RuntimeError:
        raise RuntimeError(
            f"matmul: the batch of input, shape {tuple(a.shape)}, must match that of other, shape {tuple(b.shape)}"
        ) from None
    a = a.expand(*batch, *a.shape[-2:]).flatten(0, -3)
    b = b.expand(*batch, *b.shape[-2:]).flatten(0, -3)
    return gemm("matmul", a, b).unflatten(0, batch)


def _needs_torch(out: Tensor, *operands: Tensor) -> bool:
    """torch's op does all that ``out`` cannot do here, and raises its own errors: gradients, modes, odd tensors."""
    if watched() or not all(plain(x) for x in (out, *operands)):
        return True
    return torch.is_grad_enabled() and any(x.requires_grad for x in (out, *operands))


def _into(out: Tensor | None, result: Tensor) -> Tensor:
    """Copies the result to ``out``, as torch does: resized with a warning where its shape is another."""
    return result if out is None else torch.ops.aten.clone.out(result, out=out)
