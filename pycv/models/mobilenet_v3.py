"""MobileNet v3: inverted residuals with squeeze and excitation, shaped by architecture search.

Source: A. Howard et al., "Searching for MobileNetV3", ICCV 2019: tables 1 (large) and 2 (small), figure 4 (the block),
figure 5 (the last stage), section 5.2 (hard swish). As published. Keys of the state_dict are those of torchvision;
batch normalisation has eps 0.001 and momentum 0.01 as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor
from torch.nn import Dropout, Hardsigmoid, Hardswish, Module, Sequential

from .. import nn
from .blocks import ConvNormActivation, Norm, SqueezeExcitation, initialise_as_he, make_divisible
from .registry import register


class Row(NamedTuple):
    """A block of tables 1 and 2: filter size, expanded and output channels, squeeze-and-excite, activation, stride."""

    kernel: int
    expanded: int
    out_channels: int
    squeeze: bool
    activation: Callable[..., Module]
    stride: int


RE, HS = nn.ReLU, Hardswish

LARGE = (
    Row(3, 16, 16, False, RE, 1),
    Row(3, 64, 24, False, RE, 2),
    Row(3, 72, 24, False, RE, 1),
    Row(5, 72, 40, True, RE, 2),
    Row(5, 120, 40, True, RE, 1),
    Row(5, 120, 40, True, RE, 1),
    Row(3, 240, 80, False, HS, 2),
    Row(3, 200, 80, False, HS, 1),
    Row(3, 184, 80, False, HS, 1),
    Row(3, 184, 80, False, HS, 1),
    Row(3, 480, 112, True, HS, 1),
    Row(3, 672, 112, True, HS, 1),
    Row(5, 672, 160, True, HS, 2),
    Row(5, 960, 160, True, HS, 1),
    Row(5, 960, 160, True, HS, 1),
)

SMALL = (
    Row(3, 16, 16, True, RE, 2),
    Row(3, 72, 24, False, RE, 2),
    Row(3, 88, 24, False, RE, 1),
    Row(5, 96, 40, True, HS, 2),
    Row(5, 240, 40, True, HS, 1),
    Row(5, 240, 40, True, HS, 1),
    Row(5, 120, 48, True, HS, 1),
    Row(5, 144, 48, True, HS, 1),
    Row(5, 288, 96, True, HS, 2),
    Row(5, 576, 96, True, HS, 1),
    Row(5, 576, 96, True, HS, 1),
)


class InvertedResidual(Module):
    """1×1, depthwise, squeeze and excitation, 1×1 without activation, and the identity beside them (figure 4).

    (N, in, H, W) to (N, row.out_channels, H / stride, W / stride). ``row`` has its channels scaled already.
    """

    def __init__(self, in_channels: int, row: Row, norm_layer: Norm) -> None:
        super().__init__()
        layer = partial(ConvNormActivation, norm_layer=norm_layer, activation=row.activation)
        width = row.expanded
        self.use_res_connect = row.stride == 1 and in_channels == row.out_channels
        self.block = Sequential()
        if width != in_channels:
            self.block.append(layer(in_channels, width, 1))
        self.block.append(layer(width, width, row.kernel, row.stride, groups=width))
        if row.squeeze:
            self.block.append(SqueezeExcitation(width, make_divisible(width // 4), gate=Hardsigmoid))
        self.block.append(layer(width, row.out_channels, 1, activation=None))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.use_res_connect else self.block(x)


class MobileNetV3(Module):
    """A 3×3 stem, inverted residuals, a 1×1 convolution, global average pooling and two linear layers.

    Parameters
    ----------
    rows : the blocks, :data:`LARGE` or :data:`SMALL`.
    last_channel : width between the two linear layers (1280 or 1024).
    num_classes : outputs of the last layer.
    width_mult : multiplies all channels, which are rounded to multiples of 8.
    norm_layer : makes a normalisation of so many channels; BatchNorm2d with eps 0.001 and momentum 0.01 if None.
    dropout : probability of a zero between the two linear layers.

    Takes (N, 3, H, W) of any size, 224 in the paper; gives logits (N, num_classes).
    """

    def __init__(
        self,
        rows: Sequence[Row],
        last_channel: int,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        norm_layer: Norm | None = None,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        norm = norm_layer or partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)

        def scaled(width: int) -> int:
            return make_divisible(width * width_mult)

        channels = scaled(16)
        self.features = Sequential(ConvNormActivation(3, channels, 3, 2, norm_layer=norm, activation=Hardswish))
        for row in rows:
            row = row._replace(expanded=scaled(row.expanded), out_channels=scaled(row.out_channels))
            self.features.append(InvertedResidual(channels, row, norm))
            channels = row.out_channels
        self.features.append(ConvNormActivation(channels, 6 * channels, 1, norm_layer=norm, activation=Hardswish))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = Sequential(
            nn.Linear(6 * channels, scaled(last_channel)),
            Hardswish(inplace=True),
            Dropout(dropout),
            nn.Linear(scaled(last_channel), num_classes),
        )
        initialise_as_he(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@register
def mobilenet_v3_large(**kwargs) -> MobileNetV3:
    """MobileNet v3 large: table 1. Keyword arguments go to :class:`MobileNetV3`."""
    return MobileNetV3(LARGE, 1280, **kwargs)


@register
def mobilenet_v3_small(**kwargs) -> MobileNetV3:
    """MobileNet v3 small: table 2. Keyword arguments go to :class:`MobileNetV3`."""
    return MobileNetV3(SMALL, 1024, **kwargs)
