"""MobileNet v2: residual blocks turned inside out, narrow between and wide inside.

Source: M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018: table 1 and figure 4(d)
(the block), table 2 (the architecture). As published. Keys of the state_dict are those of torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor
from torch.nn import Dropout, Module, ReLU6, Sequential

from .. import nn
from .blocks import ConvNormActivation, Norm, initialise_as_he, make_divisible
from .registry import register

# Table 2: expansion, output channels, blocks, stride of the first of them.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(Module):
    """1×1 to ``expand_ratio`` times the channels, 3×3 depthwise, 1×1 without activation, and the identity beside them.

    (N, in, H, W) to (N, out, H / stride, W / stride). No identity where the shape changes, no first 1×1 at ratio 1.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, expand_ratio: int, norm_layer: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        layer = partial(ConvNormActivation, norm_layer=norm_layer, activation=ReLU6)
        hidden = in_channels * expand_ratio
        self.use_res_connect = stride == 1 and in_channels == out_channels
        self.conv = Sequential(
            *([layer(in_channels, hidden, 1)] if expand_ratio != 1 else []),
            layer(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            norm_layer(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(Module):
    """A 3×3 stem, 17 inverted residuals, a 1×1 convolution, global average pooling and one linear layer.

    3,504,872 parameters, 300,774,272 MACs.

    Parameters
    ----------
    num_classes : outputs of the last layer.
    width_mult : multiplies all channels but, below 1, the 1280 of the last convolution.
    inverted_residual_setting : rows of expansion, channels, blocks and stride; None for those of table 2.
    round_nearest : channels are rounded to multiples of it.
    norm_layer : makes a normalisation of so many channels; BatchNorm2d if None.
    dropout : probability of a zero before the linear layer.

    Takes (N, 3, H, W) of any size, 224 in the paper; gives logits (N, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        inverted_residual_setting: Sequence[Sequence[int]] | None = None,
        round_nearest: int = 8,
        norm_layer: Norm | None = None,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        norm = norm_layer or nn.BatchNorm2d
        channels = make_divisible(32 * width_mult, round_nearest)
        self.last_channel = make_divisible(1280 * max(1.0, width_mult), round_nearest)
        self.features = Sequential(ConvNormActivation(3, channels, 3, 2, norm_layer=norm, activation=ReLU6))
        for expansion, width, depth, first_stride in inverted_residual_setting or STAGES:
            out_channels = make_divisible(width * width_mult, round_nearest)
            for index in range(depth):
                stride = first_stride if index == 0 else 1
                self.features.append(InvertedResidual(channels, out_channels, stride, expansion, norm))
                channels = out_channels
        self.features.append(ConvNormActivation(channels, self.last_channel, 1, norm_layer=norm, activation=ReLU6))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = Sequential(Dropout(dropout), nn.Linear(self.last_channel, num_classes))
        initialise_as_he(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@register
def mobilenet_v2(**kwargs) -> MobileNetV2:
    """MobileNet v2: table 2. Keyword arguments go to :class:`MobileNetV2`."""
    return MobileNetV2(**kwargs)
