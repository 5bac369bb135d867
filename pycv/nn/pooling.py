"""Max, average and adaptive pooling: the torch.nn layers on pycv's kernels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.pooling import _MaxPoolNd

from .. import functional
from .tracing import Scriptable


class MaxPool1d(Scriptable, torch.nn.MaxPool1d):
    """torch.nn.MaxPool1d on pycv's kernels: input (N, C, W) or (C, W); same arguments and repr."""

    def forward(self, input: Tensor):
        return functional.max_pool1d(input, *_max_window(self))


class MaxPool2d(Scriptable, torch.nn.MaxPool2d):
    """torch.nn.MaxPool2d on pycv's kernels: input (N, C, H, W) or (C, H, W); same arguments and repr."""

    def forward(self, input: Tensor):
        return functional.max_pool2d(input, *_max_window(self))


class MaxPool3d(Scriptable, torch.nn.MaxPool3d):
    """torch.nn.MaxPool3d on pycv's kernels: input (N, C, D, H, W) or (C, D, H, W); same arguments and repr."""

    def forward(self, input: Tensor):
        return functional.max_pool3d(input, *_max_window(self))


def _max_window(layer: _MaxPoolNd) -> tuple:
    window = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return (*window, layer.ceil_mode, layer.return_indices)


class AvgPool1d(Scriptable, torch.nn.AvgPool1d):
    """torch.nn.AvgPool1d on pycv's kernels: input (N, C, W) or (C, W); same arguments and repr."""

    def forward(self, input: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding)
        return functional.avg_pool1d(input, *window, self.ceil_mode, self.count_include_pad)


class AvgPool2d(Scriptable, torch.nn.AvgPool2d):
    """torch.nn.AvgPool2d on pycv's kernels: input (N, C, H, W) or (C, H, W); same arguments and repr."""

    def forward(self, input: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding)
        return functional.avg_pool2d(input, *window, self.ceil_mode, self.count_include_pad, self.divisor_override)


class AvgPool3d(Scriptable, torch.nn.AvgPool3d):
    """torch.nn.AvgPool3d on pycv's kernels: input (N, C, D, H, W) or (C, D, H, W); same arguments and repr."""

    def forward(self, input: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding)
        return functional.avg_pool3d(input, *window, self.ceil_mode, self.count_include_pad, self.divisor_override)


class AdaptiveAvgPool1d(Scriptable, torch.nn.AdaptiveAvgPool1d):
    """torch.nn.AdaptiveAvgPool1d on pycv's kernels: input (N, C, W) or (C, W); same arguments and repr."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(Scriptable, torch.nn.AdaptiveAvgPool2d):
    """torch.nn.AdaptiveAvgPool2d on pycv's kernels: input (N, C, H, W) or (C, H, W); same arguments and repr."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(Scriptable, torch.nn.AdaptiveAvgPool3d):
    """torch.nn.AdaptiveAvgPool3d on pycv's kernels: input (N, C, D, H, W) or unbatched; same arguments and repr."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.adaptive_avg_pool3d(input, self.output_size)


class AdaptiveMaxPool1d(Scriptable, torch.nn.AdaptiveMaxPool1d):
    """torch.nn.AdaptiveMaxPool1d on pycv's kernels: input (N, C, W) or (C, W); same arguments and repr."""

    def forward(self, input: Tensor):
        return functional.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(Scriptable, torch.nn.AdaptiveMaxPool2d):
    """torch.nn.AdaptiveMaxPool2d on pycv's kernels: input (N, C, H, W) or (C, H, W); same arguments and repr."""

    def forward(self, input: Tensor):
        return functional.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(Scriptable, torch.nn.AdaptiveMaxPool3d):
    """torch.nn.AdaptiveMaxPool3d on pycv's kernels: input (N, C, D, H, W) or unbatched; same arguments and repr."""

    def forward(self, input: Tensor):
        return functional.adaptive_max_pool3d(input, self.output_size, self.return_indices)
