"""What several families are built from. Names of the children are those of torchvision's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module, Sequential, Sigmoid, init

from .. import nn

Norm = Callable[[int], Module]


class ConvNormActivation(Sequential):
    """A convolution without bias that keeps the size at stride 1, its normalisation, and an activation or none.

    ``activation`` is a class whose instances may work in place. (N, in, H, W) to (N, out, ceil(H / stride), ...).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        norm_layer: Norm = nn.BatchNorm2d,
        activation: Callable[..., Module] | None = nn.ReLU,
    ) -> None:
        padding = kernel_size // 2
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        last = () if activation is None else (activation(inplace=True),)
        super().__init__(conv, norm_layer(out_channels), *last)


class BasicConv2d(Module):
    """A convolution without bias, batch normalisation (eps 0.001) and ReLU, as in GoogLeNet and Inception."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class SqueezeExcitation(Module):
    """Scales every channel by a factor in 0..1 computed from the means of all channels. Keeps the shape.

    J. Hu, L. Shen, G. Sun, "Squeeze-and-Excitation Networks", CVPR 2018, figure 2: mean, fc1, activation, fc2, gate.
    """

    def __init__(
        self,
        channels: int,
        squeezed: int,
        activation: Callable[..., Module] = nn.ReLU,
        gate: Callable[[], Module] = Sigmoid,
    ) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = activation()
        self.scale_activation = gate()

    def forward(self, x: Tensor) -> Tensor:
        return self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x))))) * x


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deals out the channels: channel ``i`` of group ``g`` becomes channel ``g`` of new group ``i``. Keeps the shape.

    X. Zhang et al., "ShuffleNet", CVPR 2018, figure 1(c). Memory format is kept as well.
    """
    return torch.nn.functional.channel_shuffle(x, groups)


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor``, at least one, that is not below 0.9 ``channels``.

    The rule for scaled widths of the MobileNets' published code.
    """
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def from_imagenet_statistics(x: Tensor) -> Tensor:
    """Images (N, 3, H, W) normalised by ImageNet's means and deviations to the range -1..1 of TensorFlow's models."""
    mean, std = x.new_tensor([0.485, 0.456, 0.406]), x.new_tensor([0.229, 0.224, 0.225])
    return x * (std / 0.5)[:, None, None] + ((mean - 0.5) / 0.5)[:, None, None]


def truncated_normal_(weight: Tensor, std: float) -> None:
    """N(0, std²) cut at two deviations: the initialisation of TensorFlow's GoogLeNet and Inception."""
    init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def initialise_as_he(model: Module, linear_std: float = 0.01) -> None:
    """He's normal initialisation (fan-out) of convolutions, N(0, linear_std²) of linear layers, zero biases."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, 0, linear_std)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            init.zeros_(module.bias)
