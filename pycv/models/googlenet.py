"""GoogLeNet: inception modules, with two auxiliary classifiers while it trains.

Source: C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015: figure 2(b) (the module), table 1 and figure 3
(the network), section 5 (auxiliary classifiers). As in torchvision, whose keys and published weights (ported from
TensorFlow's) these are, it differs from the paper: batch normalisation after every convolution, no local response
normalisation, and 3×3 filters where table 1 has 5×5. Hence 6.6 million parameters and not the 5 million of the paper.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Dropout, Module, Sequential

from .. import nn
from .blocks import BasicConv2d, from_imagenet_statistics, truncated_normal_
from .registry import register


class GoogLeNetOutputs(NamedTuple):
    """What training gives: logits (N, num_classes) of the network and of its auxiliary classifiers, deeper first."""

    logits: Tensor
    aux_logits2: Tensor
    aux_logits1: Tensor


class Inception(Module):
    """1×1; 1×1 and 3×3; 1×1 and a second 3×3 ("5×5" in the paper); pooling and 1×1: all of one input, concatenated.

    (N, in_channels, H, W) to (N, ch1x1 + ch3x3 + ch5x5 + pool_proj, H, W). Arguments are the columns of table 1.
    """

    def __init__(
        self,
        in_channels: int,
        ch1x1: int,
        ch3x3red: int,
        ch3x3: int,
        ch5x5red: int,
        ch5x5: int,
        pool_proj: int,
    ) -> None:
        super().__init__()
        self.branch1 = BasicConv2d(in_channels, ch1x1, 1)
        self.branch2 = Sequential(BasicConv2d(in_channels, ch3x3red, 1), BasicConv2d(ch3x3red, ch3x3, 3, padding=1))
        self.branch3 = Sequential(BasicConv2d(in_channels, ch5x5red, 1), BasicConv2d(ch5x5red, ch5x5, 3, padding=1))
        self.branch4 = Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), BasicConv2d(in_channels, pool_proj, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionAux(Module):
    """An auxiliary classifier (section 5): (N, in_channels, H, W) to logits (N, num_classes)."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float = 0.7) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d((4, 4))
        self.conv = BasicConv2d(in_channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = Dropout(dropout)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.avgpool(x)).flatten(1)
        return self.fc2(self.dropout(self.relu(self.fc1(x))))


class GoogLeNet(Module):
    """22 layers with parameters: three convolutions, nine inception modules, one linear layer.

    6,624,904 parameters, 13,004,888 with the auxiliary classifiers; 1,498,376,192 MACs.

    Parameters
    ----------
    num_classes : outputs of every classifier.
    aux_logits : have the auxiliary classifiers. They run in training only, whose result is then
        :class:`GoogLeNetOutputs`; the paper adds 0.3 of each of their losses.
    transform_input : images are normalised by ImageNet's statistics; bring them to the range -1..1 that torchvision's
        published weights expect.
    init_weights : N(0, 0.01²) cut at two deviations; otherwise the layers' own.
    dropout, dropout_aux : probability of a zero before the linear layer, and in the auxiliary classifiers.

    Takes (N, 3, H, W), 224 in the paper, at least 15; gives logits (N, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        init_weights: bool = True,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
    ) -> None:
        super().__init__()
        self.aux_logits = aux_logits
        self.transform_input = transform_input
        self.conv1 = BasicConv2d(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = BasicConv2d(64, 64, 1)
        self.conv3 = BasicConv2d(64, 192, 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
        self.aux1 = InceptionAux(512, num_classes, dropout_aux) if aux_logits else None
        self.aux2 = InceptionAux(528, num_classes, dropout_aux) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)
        if init_weights:
            for module in self.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    truncated_normal_(module.weight, 0.01)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutputs:
        if self.transform_input:
            x = from_imagenet_statistics(x)
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        after_4a = self.inception4a(x)
        after_4d = self.inception4d(self.inception4c(self.inception4b(after_4a)))
        x = self.maxpool4(self.inception4e(after_4d))
        x = self.avgpool(self.inception5b(self.inception5a(x))).flatten(1)
        logits = self.fc(self.dropout(x))
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return GoogLeNetOutputs(logits, self.aux2(after_4d), self.aux1(after_4a))
        return logits


@register
def googlenet(**kwargs) -> GoogLeNet:
    """GoogLeNet (Inception v1): table 1. Keyword arguments go to :class:`GoogLeNet`."""
    return GoogLeNet(**kwargs)
