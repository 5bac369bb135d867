"""ReLU: the torch.nn layer on pycv's kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import functional
from .tracing import Scriptable


class ReLU(Scriptable, torch.nn.ReLU):
    """torch.nn.ReLU on pycv's kernels: any shape; same arguments and repr."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.relu(input, self.inplace)
