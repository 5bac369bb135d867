"""The torch.nn.functional look-alike: same names, arguments and results, on pycv's kernels."""

from __future__ import annotations

from torch import Tensor

from .ops import linear as _linear
from .ops import matmul as _matmul
from .ops.relu import relu as _relu


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0) per element; NaN stays NaN. Any shape and dtype; the result keeps shape, dtype and memory format."""
    return _relu(input, inplace)


def mm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix product of input (m, k) and mat2 (k, n), as :func:`torch.mm`.

    Raises RuntimeError where the operands are no matrices, do not fit together or differ in dtype.
    """
    return _matmul.mm(input, mat2, out=out)


def bmm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix products of input (batch, m, k) and mat2 (batch, k, n), one per batch entry, as :func:`torch.bmm`.

    Raises RuntimeError where the operands are not 3-D, do not fit together or differ in dtype.
    """
    return _matmul.bmm(input, mat2, out=out)


def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix product with broadcast leading axes, as :func:`torch.matmul`: (..., m, k) and (..., k, n).

    A 1-D input is a row, a 1-D other a column; the result then has no such axis.
    Raises RuntimeError where an operand is 0-D or the two do not fit together or differ in dtype.
    """
    return _matmul.matmul(input, other, out=out)


def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1, out: Tensor | None = None
) -> Tensor:
    """beta * input + alpha * mat1 @ mat2, as :func:`torch.addmm`: mat1 (m, k), mat2 (k, n), input broadcast to (m, n).

    With beta = 0 the input is not read: its NaN do not spread.
    Raises RuntimeError where the operands do not fit together or differ in dtype.
    """
    return _matmul.addmm(input, mat1, mat2, beta=beta, alpha=alpha, out=out)


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """input @ weight^T + bias, as :func:`torch.nn.functional.linear`, and more in the same pass over the result.

    Parameters
    ----------
    input : (..., in_features)
    weight : (out_features, in_features)
    bias : (out_features), optional
    residual : optional
        Added after the bias; broadcast to the result's shape (..., out_features).
    activation : {"relu"}, optional
        Applied last.

    Raises
    ------
    RuntimeError
        Where the operands do not fit together or differ in dtype.
    ValueError
        For an activation that is not known.
    """
    return _linear.linear(input, weight, bias, residual=residual, activation=activation)
