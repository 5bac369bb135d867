"""DenseNet: every layer sees the maps of all layers before it.

Source: G. Huang, Z. Liu, L. van der Maaten, K. Weinberger, "Densely Connected Convolutional Networks", CVPR 2017:
table 1 (the architectures), section 3 (bottlenecks and compression: DenseNet-BC). As published. Keys of the state_dict
are those of torchvision; the older ones of its published files (``denselayer1.norm.1`` for ``denselayer1.norm1``) load
as well.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Dropout, Module, Sequential, init

from .. import nn
from .registry import register


class DenseLayer(Module):
    """Appends ``growth_rate`` maps: (N, C, H, W) to (N, C + growth_rate, H, W).

    Normalisation, ReLU, 1×1 convolution to ``bn_size * growth_rate`` maps; the same again with 3×3.
    """

    def __init__(self, in_channels: int, growth_rate: int, bn_size: int, drop_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, bn_size * growth_rate, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bn_size * growth_rate)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bn_size * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.dropout = Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(self.relu1(self.norm1(x)))
        new = self.conv2(self.relu2(self.norm2(new)))
        return torch.cat([x, self.dropout(new)], 1)


def transition(channels: int) -> Sequential:
    """Between two blocks: half the maps, by a 1×1 convolution, of half the size. (N, C, H, W) to (N, C/2, H/2, W/2)."""
    layers: OrderedDict[str, Module] = OrderedDict(
        norm=nn.BatchNorm2d(channels),
        relu=nn.ReLU(inplace=True),
        conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
        pool=nn.AvgPool2d(2, stride=2),
    )
    return Sequential(layers)


class DenseNet(Module):
    """A 7×7 stem, four dense blocks with transitions between them, global average pooling and one linear layer.

    Parameters
    ----------
    growth_rate : maps that every layer adds (k in the paper).
    block_config : layers in each of the blocks (table 1).
    num_init_features : maps of the stem.
    bn_size : the 1×1 convolution of a layer has ``bn_size * growth_rate`` maps.
    drop_rate : probability of a zero in the maps that a layer adds.
    num_classes : outputs of the last layer.

    Takes (N, 3, H, W), H and W at least 29, 224 in the paper; gives logits (N, num_classes).
    """

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        drop_rate: float = 0.0,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        features: OrderedDict[str, Module] = OrderedDict(
            conv0=nn.Conv2d(3, num_init_features, 7, stride=2, padding=3, bias=False),
            norm0=nn.BatchNorm2d(num_init_features),
            relu0=nn.ReLU(inplace=True),
            pool0=nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels = num_init_features
        for number, depth in enumerate(block_config, 1):
            block: OrderedDict[str, Module] = OrderedDict()
            for layer in range(1, depth + 1):
                block[f"denselayer{layer}"] = DenseLayer(channels, growth_rate, bn_size, drop_rate)
                channels += growth_rate
            features[f"denseblock{number}"] = Sequential(block)
            if number < len(block_config):
                features[f"transition{number}"] = transition(channels)
                channels //= 2
        features["norm5"] = nn.BatchNorm2d(channels)
        self.features = Sequential(features)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight)
        init.zeros_(self.classifier.bias)
        self.register_load_state_dict_pre_hook(_rename_old_keys)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.relu(self.features(x))).flatten(1))


def _rename_old_keys(model: Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    for key in list(state_dict):
        new = re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)
        if key.startswith(prefix) and new != key:
            state_dict[new] = state_dict.pop(key)


@register
def densenet121(**kwargs) -> DenseNet:
    """DenseNet-121: table 1. Keyword arguments go to :class:`DenseNet`."""
    return DenseNet(32, (6, 12, 24, 16), 64, **kwargs)


@register
def densenet169(**kwargs) -> DenseNet:
    """DenseNet-169: table 1. Keyword arguments go to :class:`DenseNet`."""
    return DenseNet(32, (6, 12, 32, 32), 64, **kwargs)


@register
def densenet201(**kwargs) -> DenseNet:
    """DenseNet-201: table 1. Keyword arguments go to :class:`DenseNet`."""
    return DenseNet(32, (6, 12, 48, 32), 64, **kwargs)
