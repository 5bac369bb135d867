"""ShuffleNet v1: grouped 1×1 convolutions, with the channels shuffled between them.

Source: X. Zhang, X. Zhou, M. Lin, J. Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
Devices", CVPR 2018: figure 2 (the unit), table 1 (the architecture). As in the authors' code, whose keys these are: the
last layer has no bias, the channels are dealt out in the inverse of figure 1's order (which does as well), and the
first unit shuffles, too, though its first convolution is not grouped.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module, Sequential

from .. import nn
from .blocks import channel_shuffle, initialise_as_he
from .registry import register

# Table 1: output channels of the stages, by the number of groups. Every stage has so many units.
CHANNELS = {1: (144, 288, 576), 2: (200, 400, 800), 3: (240, 480, 960), 4: (272, 544, 1088), 8: (384, 768, 1536)}
UNITS = (4, 8, 4)


class ShuffleUnit(Module):
    """1×1 in groups, shuffle, 3×3 depthwise, 1×1 in groups, beside the shortcut (figure 2 b and c).

    (N, in, H, W) to (N, out, H / stride, W / stride): at stride 1 the shortcut is added, at stride 2 its pooled
    channels are concatenated. The shuffle stands after the depthwise convolution, not before, which comes to the same
    with another order of its filters.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int, first_grouped: bool) -> None:
        super().__init__()
        self.groups = groups
        middle = out_channels // 4
        computed = out_channels - in_channels if stride == 2 else out_channels
        self.branch_main_1 = Sequential(
            nn.Conv2d(in_channels, middle, 1, groups=groups if first_grouped else 1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, middle, 3, stride, padding=1, groups=middle, bias=False),
            nn.BatchNorm2d(middle),
        )
        self.branch_main_2 = Sequential(
            nn.Conv2d(middle, computed, 1, groups=groups, bias=False),
            nn.BatchNorm2d(computed),
        )
        self.relu = nn.ReLU(inplace=True)
        self.branch_proj = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch_main_1(x)
        y = self.branch_main_2(channel_shuffle(y, y.shape[1] // self.groups))
        if self.branch_proj is None:
            return self.relu(y + x)
        return torch.cat([self.branch_proj(x), self.relu(y)], 1)


class ShuffleNetV1(Module):
    """A 3×3 stem, max pooling, 16 shuffle units, global average pooling and one linear layer without bias.

    Parameters
    ----------
    groups : of the 1×1 convolutions; 1, 2, 3, 4 or 8, which gives the channels of table 1.
    num_classes : outputs of the last layer.

    Takes (N, 3, H, W) of any size, 224 in the paper; gives logits (N, num_classes).

    Raises
    ------
    ValueError
        For another number of groups.
    """

    def __init__(self, groups: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        if groups not in CHANNELS:
            raise ValueError(f"groups={groups}: expected one of {', '.join(map(str, CHANNELS))}")
        channels = 24
        self.first_conv = Sequential(
            nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.features = Sequential()
        for out_channels, units in zip(CHANNELS[groups], UNITS, strict=True):
            for index in range(units):
                first_grouped = len(self.features) > 0
                stride = 2 if index == 0 else 1
                self.features.append(ShuffleUnit(channels, out_channels, stride, groups, first_grouped))
                channels = out_channels
        self.globalpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = Sequential(nn.Linear(channels, num_classes, bias=False))
        initialise_as_he(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(self.maxpool(self.first_conv(x)))
        return self.classifier(self.globalpool(x).flatten(1))


@register
def shufflenet_v1_g3(**kwargs) -> ShuffleNetV1:
    """ShuffleNet v1, 3 groups: table 1. Keyword arguments go to :class:`ShuffleNetV1`."""
    return ShuffleNetV1(groups=3, **kwargs)


@register
def shufflenet_v1_g8(**kwargs) -> ShuffleNetV1:
    """ShuffleNet v1, 8 groups: table 1. Keyword arguments go to :class:`ShuffleNetV1`."""
    return ShuffleNetV1(groups=8, **kwargs)
