"""ShuffleNet v2: half of the channels pass through, no grouped 1×1 convolutions, equal widths.

Source: N. Ma, X. Zhang, H. Zheng, J. Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
ECCV 2018: figure 3 (c) and (d) (the units), table 5 (the architecture). As published. Keys of the state_dict are those
of torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Module, Sequential

from .. import nn
from .blocks import channel_shuffle
from .registry import register


class InvertedResidual(Module):
    """1×1, 3×3 depthwise and 1×1 on half of the channels, then a shuffle of both halves (figure 3 c).

    At stride 2 (figure 3 d) both halves are computed from all channels, one without the first 1×1. (N, in, H, W) to
    (N, out, H / stride, W / stride).

    Raises
    ------
    ValueError
        At stride 1, if ``inp`` and ``oup`` are not equal.
    """

    def __init__(self, inp: int, oup: int, stride: int) -> None:
        super().__init__()
        if stride == 1 and inp != oup:
            raise ValueError(f"inp={inp}, oup={oup}: expected equal ones at stride=1")
        half = oup // 2
        self.stride = stride
        self.branch1 = Sequential()
        if stride > 1:
            self.branch1 = Sequential(
                nn.Conv2d(inp, inp, 3, stride, padding=1, groups=inp, bias=False),
                nn.BatchNorm2d(inp),
                nn.Conv2d(inp, half, 1, bias=False),
                nn.BatchNorm2d(half),
                nn.ReLU(inplace=True),
            )
        self.branch2 = Sequential(
            nn.Conv2d(inp if stride > 1 else half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, stride, padding=1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            kept, computed = x.chunk(2, dim=1)
        else:
            kept, computed = self.branch1(x), x
        return channel_shuffle(torch.cat([kept, self.branch2(computed)], 1), 2)


class ShuffleNetV2(Module):
    """A 3×3 stem, max pooling, 16 units, a 1×1 convolution, global average pooling and one linear layer.

    Parameters
    ----------
    stages_repeats : units in each of the three stages.
    stages_out_channels : of the stem, the three stages and the last convolution (table 5).
    num_classes : outputs of the last layer.

    Takes (N, 3, H, W) of any size, 224 in the paper; gives logits (N, num_classes).

    Raises
    ------
    ValueError
        If there are not three repeats and five channels.
    """

    def __init__(
        self, stages_repeats: Sequence[int], stages_out_channels: Sequence[int], num_classes: int = 1000
    ) -> None:
        super().__init__()
        if len(stages_repeats) != 3:
            raise ValueError(f"stages_repeats={stages_repeats!r}: expected three")
        if len(stages_out_channels) != 5:
            raise ValueError(f"stages_out_channels={stages_out_channels!r}: expected five")
        stem, *widths, last = stages_out_channels
        self.conv1 = Sequential(
            nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True)
        )
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.stage2 = _stage(stem, widths[0], stages_repeats[0])
        self.stage3 = _stage(widths[0], widths[1], stages_repeats[1])
        self.stage4 = _stage(widths[1], widths[2], stages_repeats[2])
        self.conv5 = Sequential(nn.Conv2d(widths[2], last, 1, bias=False), nn.BatchNorm2d(last), nn.ReLU(inplace=True))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.conv1(x))
        x = self.conv5(self.stage4(self.stage3(self.stage2(x))))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(inp: int, oup: int, units: int) -> Sequential:
    """The first unit halves the size."""
    return Sequential(InvertedResidual(inp, oup, 2), *(InvertedResidual(oup, oup, 1) for _ in range(units - 1)))


@register
def shufflenet_v2_x0_5(**kwargs) -> ShuffleNetV2:
    """ShuffleNet v2 ×0.5: table 5. Keyword arguments go to :class:`ShuffleNetV2`."""
    return ShuffleNetV2((4, 8, 4), (24, 48, 96, 192, 1024), **kwargs)


@register
def shufflenet_v2_x1_0(**kwargs) -> ShuffleNetV2:
    """ShuffleNet v2 ×1.0: table 5. Keyword arguments go to :class:`ShuffleNetV2`."""
    return ShuffleNetV2((4, 8, 4), (24, 116, 232, 464, 1024), **kwargs)


@register
def shufflenet_v2_x1_5(**kwargs) -> ShuffleNetV2:
    """ShuffleNet v2 ×1.5: table 5. Keyword arguments go to :class:`ShuffleNetV2`."""
    return ShuffleNetV2((4, 8, 4), (24, 176, 352, 704, 1024), **kwargs)


@register
def shufflenet_v2_x2_0(**kwargs) -> ShuffleNetV2:
    """ShuffleNet v2 ×2.0: table 5. Keyword arguments go to :class:`ShuffleNetV2`."""
    return ShuffleNetV2((4, 8, 4), (24, 244, 488, 976, 2048), **kwargs)
