"""ResNets for small pictures: a 3×3 stem, three stages at full, half and quarter size, shortcuts without parameters.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2: the
table there (6n + 2 layers), identity shortcuts everywhere (option A), and section 3.4.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module, Sequential, functional

from .. import nn
from .blocks import initialise_as_he
from .registry import register
from .resnet import BasicBlock, conv3x3


class Subsampled(Module):
    """The shortcut where shapes change (option A): every second pixel, and maps of zeros for the new channels.

    (N, C, H, W) to (N, C + added, ceil(H / 2), ceil(W / 2)).
    """

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.added))

    def extra_repr(self) -> str:
        return f"added={self.added}"


class CifarResNet(Module):
    """A 3×3 convolution, three stages of ``blocks`` residual blocks, global average pooling and one linear layer.

    Parameters
    ----------
    blocks : n of section 4.2; there are 6n + 2 layers with weights.
    num_classes : outputs of the last layer.
    in_channels : of the pictures.
    width : channels of the first stage, 16 in the paper; each stage has twice as many as the one before.

    Takes (N, in_channels, H, W) of any size, 32 in the paper; gives logits (N, num_classes).
    """

    def __init__(self, blocks: int, num_classes: int = 10, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(width, width, blocks)
        self.layer2 = _stage(width, 2 * width, blocks)
        self.layer3 = _stage(2 * width, 4 * width, blocks)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(4 * width, num_classes)
        initialise_as_he(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(inputs: int, outputs: int, blocks: int) -> Sequential:
    """Residual blocks, the first of which halves the size where it changes the number of channels."""
    changes = inputs != outputs
    first = BasicBlock(inputs, outputs, 2 if changes else 1, Subsampled(outputs - inputs) if changes else None)
    return Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(1, blocks)))


@register(size=32)
def resnet20(**kwargs) -> CifarResNet:
    """ResNet-20 for CIFAR: He et al., section 4.2, n = 3. Keyword arguments go to :class:`CifarResNet`."""
    return CifarResNet(**{"blocks": 3, **kwargs})
