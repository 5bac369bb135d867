"""EfficientNet: inverted residuals with squeeze and excitation, scaled in depth, width and resolution together.

Sources: M. Tan, Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019: table 1
(B0), section 3.3 (scaling), section 5.2 (training). G. Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
As published, but for the eps of batch normalisation: 1e-5 (torch's, and that of torchvision's B0) in place of 1e-3.
Keys of the state_dict are those of torchvision.
"""

from __future__ import annotations

from functools import partial
from math import ceil

import torch
from torch import Tensor
from torch.nn import Dropout, Module, Sequential, SiLU, init

from .. import nn
from .blocks import ConvNormActivation, Norm, SqueezeExcitation, initialise_as_he, make_divisible
from .registry import register

# Table 1: expansion, filter size, output channels, blocks, stride of the first of them.
STAGES = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


class StochasticDepth(Module):
    """In training, each image is zeroed with probability ``p`` and the others are divided by 1 - p. Keeps the shape."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = torch.empty((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * kept / (1 - self.p) if self.p < 1 else x * kept

    def extra_repr(self) -> str:
        return f"p={self.p}"


class MBConv(Module):
    """1×1, depthwise, squeeze and excitation, 1×1 without activation, and the identity beside them.

    (N, in, H, W) to (N, out, H / stride, W / stride). The squeeze is to a quarter of the channels that come in.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        expand_ratio: int,
        stochastic_depth_prob: float,
        norm_layer: Norm,
    ) -> None:
        super().__init__()
        layer = partial(ConvNormActivation, norm_layer=norm_layer, activation=SiLU)
        width = make_divisible(in_channels * expand_ratio)
        self.use_res_connect = stride == 1 and in_channels == out_channels
        self.block = Sequential()
        if width != in_channels:
            self.block.append(layer(in_channels, width, 1))
        self.block.append(layer(width, width, kernel_size, stride, groups=width))
        self.block.append(SqueezeExcitation(width, max(1, in_channels // 4), partial(SiLU, inplace=True)))
        self.block.append(layer(width, out_channels, 1, activation=None))
        self.stochastic_depth = StochasticDepth(stochastic_depth_prob)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.stochastic_depth(self.block(x)) if self.use_res_connect else self.block(x)


class EfficientNet(Module):
    """A 3×3 stem, seven stages of :class:`MBConv`, a 1×1 convolution, global average pooling and one linear layer.

    5,288,548 parameters, 385,814,752 MACs as B0.

    Parameters
    ----------
    num_classes : outputs of the last layer.
    width_mult, depth_mult : multiply the channels (rounded to multiples of 8) and blocks (rounded up) of table 1.
    dropout : probability of a zero before the linear layer.
    stochastic_depth_prob : probability that the last block is left out; rises to it linearly.
    norm_layer : makes a normalisation of so many channels; BatchNorm2d if None.

    Takes (N, 3, H, W) of any size, 224 for B0; gives logits (N, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        depth_mult: float = 1.0,
        dropout: float = 0.2,
        stochastic_depth_prob: float = 0.2,
        norm_layer: Norm | None = None,
    ) -> None:
        super().__init__()
        norm = norm_layer or nn.BatchNorm2d
        channels = make_divisible(32 * width_mult)
        depths = [ceil(depth * depth_mult) for *_, depth, _ in STAGES]
        before = 0
        self.features = Sequential(ConvNormActivation(3, channels, 3, 2, norm_layer=norm, activation=SiLU))
        for (expansion, kernel, width, _, first_stride), depth in zip(STAGES, depths, strict=True):
            out_channels = make_divisible(width * width_mult)
            stage = Sequential()
            for index in range(depth):
                stride = first_stride if index == 0 else 1
                left_out = stochastic_depth_prob * before / sum(depths)
                stage.append(MBConv(channels, out_channels, kernel, stride, expansion, left_out, norm))
                channels = out_channels
                before += 1
            self.features.append(stage)
        self.features.append(ConvNormActivation(channels, 4 * channels, 1, norm_layer=norm, activation=SiLU))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        last = nn.Linear(4 * channels, num_classes)
        self.classifier = Sequential(Dropout(dropout, inplace=True), last)
        initialise_as_he(self)
        bound = num_classes**-0.5
        init.uniform_(last.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@register
def efficientnet_b0(**kwargs) -> EfficientNet:
    """EfficientNet-B0: table 1. Keyword arguments go to :class:`EfficientNet`."""
    return EfficientNet(**kwargs)
