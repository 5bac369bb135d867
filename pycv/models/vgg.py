"""VGG: stacks of 3×3 convolutions, with or without batch normalisation.

Source: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015;
the architectures are columns A (vgg11), B (vgg13), D (vgg16) and E (vgg19) of table 1. Batch normalisation, an adaptive
pooling that takes images of any size, and He's initialisation came later with the usual implementations; keys of the
state_dict are those of torchvision, so that its published weights load unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor
from torch.nn import Dropout, Module, Sequential, init

from .. import nn
from .registry import register

POOL = "M"  # a 2×2 max-pooling among the channel counts

# Output channels of the 3×3 convolutions: table 1.
A = (64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)
B = (64, 64, POOL, 128, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)
D = (64, 64, POOL, 128, 128, POOL, *3 * (256,), POOL, *3 * (512,), POOL, *3 * (512,), POOL)
E = (64, 64, POOL, 128, 128, POOL, *4 * (256,), POOL, *4 * (512,), POOL, *4 * (512,), POOL)


class VGG(Module):
    """Convolutional features, adaptive pooling to 7×7, and three fully connected layers with dropout between them.

    Parameters
    ----------
    features : from (N, 3, H, W) to (N, 512, h, w), as :func:`make_layers` gives.
    num_classes : outputs of the last layer.
    init_weights : He's normal initialisation (fan-out) of convolutions, N(0, 0.01²) of linear layers, zero biases;
        otherwise the layers' own.
    dropout : probability of a zero after each of the two hidden linear layers.

    Takes (N, 3, H, W), H and W at least 32, 224 in the paper; gives logits (N, num_classes).
    """

    def __init__(
        self, features: Module, num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(True),
            Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(True),
            Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        if init_weights:
            _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _initialise(model: Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, 0, 0.01)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            init.zeros_(module.bias)


def make_layers(plan: Sequence[int | str], batch_norm: bool = False) -> Sequential:
    """3×3 convolutions of the given output channels, each with a ReLU, and a 2×2 max-pooling for each ``"M"``."""

    def layers() -> Iterator[Module]:
        channels = 3
        for step in plan:
            if isinstance(step, str):
                yield nn.MaxPool2d(kernel_size=2, stride=2)
                continue
            yield nn.Conv2d(channels, step, kernel_size=3, padding=1)
            if batch_norm:
                yield nn.BatchNorm2d(step)
            yield nn.ReLU(inplace=True)
            channels = step

    return Sequential(*layers())


@register
def vgg11(**kwargs) -> VGG:
    """VGG-11: table 1, column A. Keyword arguments go to :class:`VGG`."""
    return VGG(make_layers(A), **kwargs)


@register
def vgg11_bn(**kwargs) -> VGG:
    """VGG-11 (table 1, column A) with batch normalisation. Keyword arguments go to :class:`VGG`."""
    return VGG(make_layers(A, batch_norm=True), **kwargs)


@register
def vgg13(**kwargs) -> VGG:
    """VGG-13: table 1, column B. Keyword arguments go to :class:`VGG`."""
    return VGG(make_layers(B), **kwargs)


@register
def vgg13_bn(**kwargs) -> VGG:
    """VGG-13 (table 1, column B) with batch normalisation. Keyword arguments go to :class:`VGG`."""
    return VGG(make_layers(B, batch_norm=True), **kwargs)


@register
def vgg16(**kwargs) -> VGG:
    """VGG-16: table 1, column D. Keyword arguments go to :class:`VGG`."""
    return VGG(make_layers(D), **kwargs)


@register
def vgg16_bn(**kwargs) -> VGG:
    """VGG-16 (table 1, column D) with batch normalisation. Keyword arguments go to :class:`VGG`."""
    return VGG(make_layers(D, batch_norm=True), **kwargs)


@register
def vgg19(**kwargs) -> VGG:
    """VGG-19: table 1, column E. Keyword arguments go to :class:`VGG`."""
    return VGG(make_layers(E), **kwargs)


@register
def vgg19_bn(**kwargs) -> VGG:
    """VGG-19 (table 1, column E) with batch normalisation. Keyword arguments go to :class:`VGG`."""
    return VGG(make_layers(E, batch_norm=True), **kwargs)
