"""Darknet-53: the backbone of YOLOv3, 1×1 and 3×3 convolutions in residual pairs.

Source: J. Redmon, A. Farhadi, "YOLOv3: An Incremental Improvement", 2018, table 1. As in the authors' code: batch
normalisation and leaky ReLU of slope 0.1 after every convolution, and no activation after the addition. Keys of the
state_dict are those of timm's darknet53, whose published weights were trained with ``negative_slope=0.01``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor
from torch.nn import Flatten, LeakyReLU, Module, Sequential, init

from .. import nn
from .registry import register


class ConvNormLeaky(Module):
    """A convolution without bias, its normalisation, leaky ReLU: (N, in, H, W) to (N, out, H / stride, W / stride)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, negative_slope: float
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = LeakyReLU(negative_slope, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class DarkBlock(Module):
    """1×1 to half the channels and 3×3 back, plus the identity. Keeps the shape."""

    def __init__(self, channels: int, negative_slope: float) -> None:
        super().__init__()
        self.conv1 = ConvNormLeaky(channels, channels // 2, 1, 1, negative_slope)
        self.conv2 = ConvNormLeaky(channels // 2, channels, 3, 1, negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


class DarkStage(Module):
    """A 3×3 convolution of stride 2 and so many blocks: (N, in, H, W) to (N, out, H / 2, W / 2)."""

    def __init__(self, in_channels: int, out_channels: int, depth: int, negative_slope: float) -> None:
        super().__init__()
        self.conv_down = ConvNormLeaky(in_channels, out_channels, 3, 2, negative_slope)
        self.blocks = Sequential(*(DarkBlock(out_channels, negative_slope) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.conv_down(x))


class DarkNet(Module):
    """A 3×3 stem, five stages, global average pooling and one linear layer.

    Parameters
    ----------
    depths : blocks in each of the stages.
    num_classes : outputs of the last layer.
    negative_slope : of the leaky ReLUs.

    Takes (N, 3, H, W) of any size, 256 in the paper; gives logits (N, num_classes).
    """

    def __init__(self, depths: Sequence[int], num_classes: int = 1000, negative_slope: float = 0.1) -> None:
        super().__init__()
        channels = 32
        stem: OrderedDict[str, Module] = OrderedDict(conv1=ConvNormLeaky(3, channels, 3, 1, negative_slope))
        self.stem = Sequential(stem)
        self.stages = Sequential()
        for depth in depths:
            self.stages.append(DarkStage(channels, 2 * channels, depth, negative_slope))
            channels *= 2
        head: OrderedDict[str, Module] = OrderedDict(
            global_pool=nn.AdaptiveAvgPool2d((1, 1)), flatten=Flatten(1), fc=nn.Linear(channels, num_classes)
        )
        self.head = Sequential(head)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, a=negative_slope, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


@register(size=256)
def darknet53(**kwargs) -> DarkNet:
    """Darknet-53: table 1; 41,609,928 parameters, 9,285,115,904 MACs. Keyword arguments go to :class:`DarkNet`."""
    return DarkNet((1, 2, 8, 8, 4), **kwargs)
