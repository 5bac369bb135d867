"""ZFNet: AlexNet with smaller filters and strides at the front.

Source: M. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014: figure 3 and section 3.
It differs from AlexNet in the first two layers: 7×7 of stride 2 and 5×5 of stride 2, and in the absence of groups. The
paper says "contrast normalized across feature maps" after both poolings and gives no constants: AlexNet's are taken.
Figure 3 gives the maps (110, 26, 13) but not the padding; the one that fits is 1 for the first convolution and the
first two poolings. Its clipping of filters whose norm exceeds 0.1 is a matter of training.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor
from torch.nn import Module, Sequential, init

from .. import nn
from .alexnet import linear_layers
from .registry import register


class ZFNet(Module):
    """Five convolutions and three linear layers; 62,357,608 parameters, 1,168,032,896 MACs.

    Parameters
    ----------
    num_classes : outputs of the last layer.
    dropout : probability of a zero after each of the two hidden linear layers.
    init_weights : the scale of section 3, N(0, 0.01²), and zero biases; otherwise the layers' own.

    Takes (N, 3, 224, 224), gives logits (N, num_classes).
    """

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5, init_weights: bool = True) -> None:
        super().__init__()
        features: OrderedDict[str, Module] = OrderedDict(
            conv1=nn.Conv2d(3, 96, 7, stride=2, padding=1),
            relu1=nn.ReLU(inplace=True),
            pool1=nn.MaxPool2d(3, stride=2, padding=1),
            norm1=nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),
            conv2=nn.Conv2d(96, 256, 5, stride=2),
            relu2=nn.ReLU(inplace=True),
            pool2=nn.MaxPool2d(3, stride=2, padding=1),
            norm2=nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),
            conv3=nn.Conv2d(256, 384, 3, padding=1),
            relu3=nn.ReLU(inplace=True),
            conv4=nn.Conv2d(384, 384, 3, padding=1),
            relu4=nn.ReLU(inplace=True),
            conv5=nn.Conv2d(384, 256, 3, padding=1),
            relu5=nn.ReLU(inplace=True),
            pool5=nn.MaxPool2d(3, stride=2),
        )
        self.features = Sequential(features)
        self.classifier = linear_layers(num_classes, dropout)
        if init_weights:
            for module in self.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                    init.normal_(module.weight, 0, 0.01)
                    init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


@register
def zfnet(**kwargs) -> ZFNet:
    """ZFNet: figure 3. Keyword arguments go to :class:`ZFNet`."""
    return ZFNet(**kwargs)
