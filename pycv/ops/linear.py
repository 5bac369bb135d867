"""linear: input @ weight^T + bias, with an optional residual and relu applied before the result is stored."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .gemm import gemm


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
    if activation not in (None, "relu"):
        raise ValueError(f"activation={activation!r}: expected None or 'relu'")
    return gemm("linear", input, weight, bias, residual, 1.0, 1.0, True, activation is not None, prepared)
