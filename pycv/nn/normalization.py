"""BatchNorm1d/2d/3d and LocalResponseNorm: the torch.nn layers on pycv's kernels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.nn.modules.batchnorm import _BatchNorm

from .. import functional
from .tracing import Scriptable, leaf


class _Norm(Scriptable, _BatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy):
            return leaf(self, input)
        self._check_input_dim(input)
        tracked = not self.training or self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if tracked else (None, None)
        batch_statistics = self.training or (self.running_mean is None and self.running_var is None)
        momentum = self._average_factor()
        return functional.batch_norm(input, mean, var, self.weight, self.bias, batch_statistics, momentum, self.eps)

    def _average_factor(self) -> float:
        """The weight of this batch in the running statistics; counts the batch. momentum=None: a plain average."""
        if not (self.training and self.track_running_stats and self.num_batches_tracked is not None):
            return 0.0 if self.momentum is None else self.momentum
        self.num_batches_tracked.add_(1)
        return 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum


class BatchNorm1d(_Norm, torch.nn.BatchNorm1d):
    """torch.nn.BatchNorm1d on pycv's kernels: input (N, C) or (N, C, W); same arguments, state_dict and repr."""


class BatchNorm2d(_Norm, torch.nn.BatchNorm2d):
    """torch.nn.BatchNorm2d on pycv's kernels: input (N, C, H, W); same arguments, state_dict and repr."""


class BatchNorm3d(_Norm, torch.nn.BatchNorm3d):
    """torch.nn.BatchNorm3d on pycv's kernels: input (N, C, D, H, W); same arguments, state_dict and repr."""


class LocalResponseNorm(Scriptable, torch.nn.LocalResponseNorm):
    """torch.nn.LocalResponseNorm on pycv's kernels: input (N, C, *); same arguments and repr."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.local_response_norm(input, self.size, self.alpha, self.beta, self.k)
