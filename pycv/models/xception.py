"""Xception: Inception's idea taken to its end, depthwise separable convolutions throughout, with residual connections.

Source: F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017: figure 5 (the
architecture; batch normalisation after every convolution is not drawn). As published. Keys of the state_dict are
those of timm's legacy_xception.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.nn import Dropout, Module, Sequential

from .. import nn
from .blocks import initialise_as_he
from .registry import register


class SeparableConv2d(Module):
    """3×3 depthwise, then 1×1, nothing between them: (N, in, H, W) to (N, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.conv1(x))


class Block(Module):
    """So many separable convolutions, each after a ReLU and normalised, beside the shortcut.

    (N, in, H, W) to (N, out, H / strides, W / strides); with strides of 2 a max pooling ends the block.

    Parameters
    ----------
    reps : separable convolutions.
    start_with_relu : whether there is one before the first of them.
    grow_first : whether the first or the last of them changes the number of channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        reps: int,
        strides: int = 1,
        start_with_relu: bool = True,
        grow_first: bool = True,
    ) -> None:
        super().__init__()
        projected = strides != 1 or in_channels != out_channels
        self.skip = nn.Conv2d(in_channels, out_channels, 1, strides, bias=False) if projected else None
        self.skipbn = nn.BatchNorm2d(out_channels) if projected else None

        def layers() -> Iterator[Module]:
            middle = out_channels if grow_first else in_channels
            widths = [in_channels, *[middle] * (reps - 1), out_channels]
            for index in range(reps):
                if index > 0 or start_with_relu:
                    yield nn.ReLU(inplace=index > 0)  # the first one's input goes to the shortcut as well
                yield SeparableConv2d(widths[index], widths[index + 1])
                yield nn.BatchNorm2d(widths[index + 1])
            if strides != 1:
                yield nn.MaxPool2d(3, strides, padding=1)

        self.rep = Sequential(*layers())

    def forward(self, x: Tensor) -> Tensor:
        y = self.rep(x)
        return y + (x if self.skip is None or self.skipbn is None else self.skipbn(self.skip(x)))


class Xception(Module):
    """Two convolutions, twelve residual blocks, two separable convolutions, one linear layer.

    22,855,952 parameters, 8,357,403,496 MACs on 299×299.

    Parameters
    ----------
    num_classes : outputs of the last layer.
    dropout : probability of a zero before it; 0.5 is the paper's on ImageNet.

    Takes (N, 3, H, W), 299 in the paper, at least 7; gives logits (N, num_classes).
    """

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.act2 = nn.ReLU(inplace=True)
        self.block1 = Block(64, 128, 2, 2, start_with_relu=False)
        self.block2 = Block(128, 256, 2, 2)
        self.block3 = Block(256, 728, 2, 2)
        self.block4 = Block(728, 728, 3)
        self.block5 = Block(728, 728, 3)
        self.block6 = Block(728, 728, 3)
        self.block7 = Block(728, 728, 3)
        self.block8 = Block(728, 728, 3)
        self.block9 = Block(728, 728, 3)
        self.block10 = Block(728, 728, 3)
        self.block11 = Block(728, 728, 3)
        self.block12 = Block(728, 1024, 2, 2, grow_first=False)
        self.conv3 = SeparableConv2d(1024, 1536)
        self.bn3 = nn.BatchNorm2d(1536)
        self.act3 = nn.ReLU(inplace=True)
        self.conv4 = SeparableConv2d(1536, 2048)
        self.bn4 = nn.BatchNorm2d(2048)
        self.act4 = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = Dropout(dropout)
        self.fc = nn.Linear(2048, num_classes)
        initialise_as_he(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.act2(self.bn2(self.conv2(x)))
        x = self.block4(self.block3(self.block2(self.block1(x))))
        x = self.block8(self.block7(self.block6(self.block5(x))))
        x = self.block12(self.block11(self.block10(self.block9(x))))
        x = self.act3(self.bn3(self.conv3(x)))
        x = self.act4(self.bn4(self.conv4(x)))
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))


@register(size=299)
def xception(**kwargs) -> Xception:
    """Xception: figure 5. Keyword arguments go to :class:`Xception`."""
    return Xception(**kwargs)
