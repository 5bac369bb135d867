"""AlexNet: as it was published, the same without groups, and the slimmer version that is usually meant today.

Sources: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
NIPS 2012: section 3 and figure 2 (the architecture; its images are 227×227, the printed 224 gives no whole number of
positions), section 3.3 (local response normalisation), section 5 (initialisation). A. Krizhevsky, "One weird trick for
parallelizing convolutional neural networks", 2014, footnote 1: one tower, 64 filters first, no normalisation.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor
from torch.nn import Dropout, Module, Sequential, init

from .. import nn
from .registry import register


class AlexNetOriginal(Module):
    """Five convolutions, of which the second, fourth and fifth see half of the maps each; 60,965,224 parameters.

    Parameters
    ----------
    num_classes : outputs of the last layer.
    groups : 2 as published, where two GPUs held a half each; 1 for the usual redrawing (62,378,344 parameters).
    dropout : probability of a zero after each of the two hidden linear layers; as is usual now, the others are scaled
        in training, not the outputs in use.
    init_weights : N(0, 0.01²); biases 1 in conv2, conv4, conv5, fc6 and fc7, else 0 (section 5). Otherwise the
        layers' own.

    Takes (N, 3, 227, 227), gives logits (N, num_classes). The paper's alpha is not divided by the size of the window,
    as torch's is: 1e-4 there is 5e-4 here.
    """

    def __init__(
        self, num_classes: int = 1000, groups: int = 2, dropout: float = 0.5, init_weights: bool = True
    ) -> None:
        super().__init__()
        features: OrderedDict[str, Module] = OrderedDict(
            conv1=nn.Conv2d(3, 96, 11, stride=4),
            relu1=nn.ReLU(inplace=True),
            norm1=nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),
            pool1=nn.MaxPool2d(3, stride=2),
            conv2=nn.Conv2d(96, 256, 5, padding=2, groups=groups),
            relu2=nn.ReLU(inplace=True),
            norm2=nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),
            pool2=nn.MaxPool2d(3, stride=2),
            conv3=nn.Conv2d(256, 384, 3, padding=1),
            relu3=nn.ReLU(inplace=True),
            conv4=nn.Conv2d(384, 384, 3, padding=1, groups=groups),
            relu4=nn.ReLU(inplace=True),
            conv5=nn.Conv2d(384, 256, 3, padding=1, groups=groups),
            relu5=nn.ReLU(inplace=True),
            pool5=nn.MaxPool2d(3, stride=2),
        )
        self.features = Sequential(features)
        self.classifier = linear_layers(num_classes, dropout)
        if init_weights:
            _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def linear_layers(num_classes: int, dropout: float) -> Sequential:
    """The three linear layers of figure 2, (N, 256 * 6 * 6) to logits (N, num_classes); ZFNet has the same."""
    layers: OrderedDict[str, Module] = OrderedDict(
        fc6=nn.Linear(256 * 6 * 6, 4096),
        relu6=nn.ReLU(inplace=True),
        dropout6=Dropout(dropout),
        fc7=nn.Linear(4096, 4096),
        relu7=nn.ReLU(inplace=True),
        dropout7=Dropout(dropout),
        fc8=nn.Linear(4096, num_classes),
    )
    return Sequential(layers)


def _initialise(model: Module) -> None:
    """Section 5: the biases of 1 give the ReLUs positive inputs from the start."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            init.normal_(module.weight, 0, 0.01)
            init.constant_(module.bias, float(name.endswith(("conv2", "conv4", "conv5", "fc6", "fc7"))))


class AlexNet(Module):
    """One tower: 64, 192, 384, 256 and 256 filters, no normalisation, dropout before the linear layers.

    61,100,840 parameters, 714,188,480 MACs. Keys of the state_dict are those of torchvision.

    Parameters
    ----------
    num_classes : outputs of the last layer.
    dropout : probability of a zero before each of the two hidden linear layers.

    Takes (N, 3, H, W), H and W at least 63, 224 by default; gives logits (N, num_classes).
    """

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = Sequential(
            Dropout(dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@register
def alexnet(**kwargs) -> AlexNet:
    """AlexNet in one tower, as torchvision has it. Keyword arguments go to :class:`AlexNet`."""
    return AlexNet(**kwargs)


@register(size=227)
def alexnet_original(**kwargs) -> AlexNetOriginal:
    """AlexNet as published in 2012, two groups. Keyword arguments go to :class:`AlexNetOriginal`."""
    return AlexNetOriginal(**kwargs)


@register(size=227)
def alexnet_ungrouped(**kwargs) -> AlexNetOriginal:
    """AlexNet as published but every filter sees all maps. Keyword arguments go to :class:`AlexNetOriginal`."""
    return AlexNetOriginal(groups=1, **kwargs)
