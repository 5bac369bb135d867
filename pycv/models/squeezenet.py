"""SqueezeNet: AlexNet's accuracy of its time from a fiftieth of the parameters.

Source: F. Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", 2016:
figure 1 (the fire module), figure 2 left and table 1 (version 1.0). Version 1.1 is the authors' own (their repository):
smaller filters first and pooling earlier, 2.4 times less to compute. Keys of the state_dict are those of torchvision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Dropout, Module, Sequential, init

from .. import nn
from .registry import register


class Fire(Module):
    """1×1 to few channels, then 1×1 and 3×3 from these, concatenated: (N, in, H, W) to (N, expand1 + expand3, H, W)."""

    def __init__(self, inplanes: int, squeeze_planes: int, expand1x1_planes: int, expand3x3_planes: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inplanes, squeeze_planes, kernel_size=1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeeze_planes, expand1x1_planes, kernel_size=1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeeze_planes, expand3x3_planes, kernel_size=3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        one, three = self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))
        return torch.cat([one, three], 1)


class SqueezeNet(Module):
    """A convolution, eight fire modules, and a 1×1 convolution to the classes, of which the mean is taken.

    Parameters
    ----------
    version : "1_0" or "1_1".
    num_classes : outputs.
    dropout : probability of a zero before the last convolution.

    Takes (N, 3, H, W), H and W at least 21 (1.0) or 17 (1.1), 224 in the paper; gives logits (N, num_classes), none
    negative: the last convolution has a ReLU, too.

    Raises
    ------
    ValueError
        For another version.
    """

    def __init__(self, version: str = "1_0", num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        if version == "1_0":
            self.features = Sequential(
                nn.Conv2d(3, 96, kernel_size=7, stride=2),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),
                Fire(96, 16, 64, 64),
                Fire(128, 16, 64, 64),
                Fire(128, 32, 128, 128),
                nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),
                Fire(256, 32, 128, 128),
                Fire(256, 48, 192, 192),
                Fire(384, 48, 192, 192),
                Fire(384, 64, 256, 256),
                nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),
                Fire(512, 64, 256, 256),
            )
        elif version == "1_1":
            self.features = Sequential(
                nn.Conv2d(3, 64, kernel_size=3, stride=2),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),
                Fire(64, 16, 64, 64),
                Fire(128, 16, 64, 64),
                nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),
                Fire(128, 32, 128, 128),
                Fire(256, 32, 128, 128),
                nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),
                Fire(256, 48, 192, 192),
                Fire(384, 48, 192, 192),
                Fire(384, 64, 256, 256),
                Fire(512, 64, 256, 256),
            )
        else:
            raise ValueError(f'version={version!r}: expected "1_0" or "1_1"')
        self.classifier = Sequential(
            Dropout(dropout),
            nn.Conv2d(512, num_classes, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d((1, 1)),
        )
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x)).flatten(1)


def _initialise(model: SqueezeNet) -> None:
    """He's uniform initialisation (fan-in), N(0, 0.01²) of the last convolution, zero biases."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            if module is model.classifier[1]:
                init.normal_(module.weight, 0, 0.01)
            else:
                init.kaiming_uniform_(module.weight)
            init.zeros_(module.bias)


@register
def squeezenet1_0(**kwargs) -> SqueezeNet:
    """SqueezeNet 1.0: table 1. Keyword arguments go to :class:`SqueezeNet`."""
    return SqueezeNet("1_0", **kwargs)


@register
def squeezenet1_1(**kwargs) -> SqueezeNet:
    """SqueezeNet 1.1: the authors' cheaper version. Keyword arguments go to :class:`SqueezeNet`."""
    return SqueezeNet("1_1", **kwargs)
