"""Conv1d/2d/3d and ConvTranspose1d/2d/3d: the torch.nn layers on pycv's convolution."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Proxy
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..ops.conv import conv, conv_transpose
from .prepared import WeightedLayer
from .tracing import leaf


class _Conv(WeightedLayer, _ConvNd):
    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy):
            return leaf(self, input)
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        rank = len(self.kernel_size)
        return self._run(conv, rank, input, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Conv, torch.nn.Conv1d):
    """torch.nn.Conv1d on pycv's kernels: input (N, C, W) or (C, W); same arguments, state_dict and repr."""


class Conv2d(_Conv, torch.nn.Conv2d):
    """torch.nn.Conv2d on pycv's kernels: input (N, C, H, W) or (C, H, W); same arguments, state_dict and repr."""


class Conv3d(_Conv, torch.nn.Conv3d):
    """torch.nn.Conv3d on pycv's kernels: input (N, C, D, H, W) or (C, D, H, W); same arguments, state_dict and repr."""


class _ConvTranspose(WeightedLayer, _ConvTransposeNd):
    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """``output_size`` picks one of the sizes that the stride leaves open: spatial only, or the whole shape."""
        if isinstance(input, Proxy):
            return leaf(self, input, output_size)
        if self.padding_mode != "zeros":
            raise ValueError(f"padding_mode={self.padding_mode!r}: {type(self).__name__} only takes 'zeros'")
        rank = len(self.kernel_size)
        window: Any = (self.stride, self.padding, self.kernel_size, rank, self.dilation)
        output_padding = self._output_padding(input, output_size, *window)
        sizes = (self.stride, self.padding, output_padding, self.groups, self.dilation)
        return self._run(conv_transpose, rank, input, self.weight, self.bias, *sizes)


class ConvTranspose1d(_ConvTranspose, torch.nn.ConvTranspose1d):
    """torch.nn.ConvTranspose1d on pycv's kernels: input (N, C, W) or (C, W); same arguments, state_dict and repr."""


class ConvTranspose2d(_ConvTranspose, torch.nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d on pycv's kernels: input (N, C, H, W) or unbatched; same arguments and state_dict."""


class ConvTranspose3d(_ConvTranspose, torch.nn.ConvTranspose3d):
    """torch.nn.ConvTranspose3d on pycv's kernels: input (N, C, D, H, W) or unbatched; same arguments and state_dict."""
