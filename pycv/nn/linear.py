"""Linear: the torch.nn layer on pycv's GEMM."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Proxy

from ..ops.linear import linear
from .prepared import WeightedLayer
from .tracing import leaf


class Linear(WeightedLayer, torch.nn.Linear):
    """torch.nn.Linear on pycv's kernels: input (*, in_features); same arguments, state_dict and repr."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy):
            return leaf(self, input)
        return self._run(linear, input, self.weight, self.bias)
