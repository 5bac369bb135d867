"""The torch.nn.functional look-alike: same names, arguments and results, on pycv's kernels."""

from __future__ import annotations

from torch import Tensor

from .ops.relu import relu as _relu


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0) per element; NaN stays NaN. Any shape and dtype; the result keeps shape, dtype and memory format."""
    return _relu(input, inplace)
