"""Linear: the torch.nn layer on pycv's GEMM."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.linear import linear
from .prepared import WeightedLayer


class Linear(WeightedLayer, torch.nn.Linear):
    """torch.nn.Linear on pycv's kernels: input (*, in_features); same arguments, state_dict and repr."""

    def forward(self, input: Tensor) -> Tensor:
        return self._run(linear, input, self.weight, self.bias)
