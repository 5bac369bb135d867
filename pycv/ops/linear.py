"""linear: input @ weight^T + bias, with an optional residual and relu applied before the result is stored."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .conv_arguments import require_activation, require_tensor
from .gemm import expands_to, gemm

_torch_linear = F.linear  # bound now: torch.nn.functional may be patched to lead here


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    prepared: Any = None,
) -> Tensor:
    """See :func:`pycv.functional.linear`; ``prepared`` as in :func:`pycv.ops.gemm.gemm`."""
    relu = activation is not None and require_activation(activation)
    if residual is not None:
        require_tensor(residual)
    if isinstance(weight, Tensor) and weight.dim() == 1:
        return _with_one_row(input, weight, bias, residual, relu)
    return gemm("linear", input, weight, bias, residual, 1.0, 1.0, True, relu, prepared)


def _with_one_row(input, weight, bias, residual, relu: bool) -> Tensor:
    """torch's, of a weight (in_features): the result has no axis of outputs."""
    y = _torch_linear(input, weight, bias)
    if residual is not None:
        if not expands_to(residual.shape, y.shape):
            shapes = f"residual of shape {tuple(residual.shape)} does not broadcast to the result's {tuple(y.shape)}"
            raise RuntimeError(f"linear: {shapes}")
        y = y + residual
    return torch.relu(y) if relu else y
