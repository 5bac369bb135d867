"""MobileNet v1: depthwise convolutions that filter, 1×1 convolutions that combine.

Source: A. Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017:
table 1 (the architecture; its last depthwise layer is printed with stride 2, but its sizes say 1), figure 3 right (the
block), section 3.3 (width multiplier). The activation is ReLU6, as in the authors' code, where the paper has ReLU. Keys
of the state_dict are those of timm's mobilenetv1_100.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import Dropout, Module, ReLU6, Sequential

from .. import nn
from .blocks import initialise_as_he, make_divisible
from .registry import register

# Output channels and stride of the depthwise separable convolutions: table 1, by the size of the maps.
STAGES = (
    ((64, 1),),
    ((128, 2), (128, 1)),
    ((256, 2), (256, 1)),
    ((512, 2), *5 * ((512, 1),)),
    ((1024, 2), (1024, 1)),
)


class DepthwiseSeparable(Module):
    """3×3 depthwise, then 1×1, each normalised and activated: (N, in, H, W) to (N, out, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = ReLU6(inplace=True)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv_dw(x)))
        return self.act2(self.bn2(self.conv_pw(x)))


class MobileNetV1(Module):
    """A 3×3 stem, 13 depthwise separable convolutions, global average pooling and one linear layer.

    4,231,976 parameters, 568,740,352 MACs.

    Parameters
    ----------
    num_classes : outputs of the last layer.
    width_mult : multiplies all channels (alpha in the paper), which are rounded to multiples of 8.
    dropout : probability of a zero before the linear layer.

    Takes (N, 3, H, W) of any size, 224 in the paper; gives logits (N, num_classes).
    """

    def __init__(self, num_classes: int = 1000, width_mult: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        channels = make_divisible(32 * width_mult)
        self.conv_stem = nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = ReLU6(inplace=True)
        self.blocks = Sequential()
        for plan in STAGES:
            stage = Sequential()
            for width, stride in plan:
                out_channels = make_divisible(width * width_mult)
                stage.append(DepthwiseSeparable(channels, out_channels, stride))
                channels = out_channels
            self.blocks.append(stage)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)
        initialise_as_he(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.act1(self.bn1(self.conv_stem(x))))
        return self.classifier(self.dropout(self.avgpool(x).flatten(1)))


@register
def mobilenet_v1(**kwargs) -> MobileNetV1:
    """MobileNet v1: table 1. Keyword arguments go to :class:`MobileNetV1`."""
    return MobileNetV1(**kwargs)
