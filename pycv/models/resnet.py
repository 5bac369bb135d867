"""ResNet, and its descendants ResNeXt and Wide ResNet.

Sources: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016: figures 2 and 5
(the blocks), table 1 (the architectures), section 3.3, option B (projections where shapes change), section 3.4 (batch
normalisation after every convolution, no dropout). The stride of a bottleneck lies in its 3×3 convolution
("ResNet v1.5": facebookarchive/fb.resnet.torch, torchvision), not in the first 1×1 as in the paper.
S. Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017 (ResNeXt: table 1, and figure
3(c) for the grouped form). S. Zagoruyko, N. Komodakis, "Wide Residual Networks", BMVC 2016 (section 3.4 for ImageNet).
Keys of the state_dict are those of torchvision, so that its published weights load unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import Module, Sequential, init

from .. import nn
from .registry import register

Norm = Callable[[int], Module]


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> Module:
    """A 3×3 convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(
        in_channels, out_channels, 3, stride=stride, padding=dilation, groups=groups, bias=False, dilation=dilation
    )


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> Module:
    """A 1×1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


class BasicBlock(Module):
    """Two 3×3 convolutions beside the shortcut (He et al., figure 5 left). (N, in, H, W) to (N, planes, H', W').

    ``downsample`` is the projection of the shortcut, None for the identity.

    Raises
    ------
    ValueError
        For ``groups`` other than 1 or ``base_width`` other than 64: this block has no groups.
    NotImplementedError
        For ``dilation`` above 1.
    """

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Norm | None = None,
    ) -> None:
        super().__init__()
        if groups != 1 or base_width != 64:
            raise ValueError(f"groups={groups}, base_width={base_width}: BasicBlock takes groups=1 and base_width=64")
        if dilation > 1:
            raise NotImplementedError(f"dilation={dilation}: BasicBlock is not dilated")
        norm = norm_layer or nn.BatchNorm2d
        self.conv1 = conv3x3(inplanes, planes, stride)
        self.bn1 = norm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = norm(planes)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class Bottleneck(Module):
    """1×1, 3×3 and 1×1 convolutions beside the shortcut (He et al., figure 5 right; grouped: Xie et al., figure 3(c)).

    (N, in, H, W) to (N, 4 planes, H', W'); the 3×3 in the middle has planes * base_width / 64 * groups channels.
    """

    expansion = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Norm | None = None,
    ) -> None:
        super().__init__()
        norm = norm_layer or nn.BatchNorm2d
        width = int(planes * (base_width / 64.0)) * groups
        self.conv1 = conv1x1(inplanes, width)
        self.bn1 = norm(width)
        self.conv2 = conv3x3(width, width, stride, groups, dilation)
        self.bn2 = norm(width)
        self.conv3 = conv1x1(width, planes * self.expansion)
        self.bn3 = norm(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet(Module):
    """A 7×7 stem, four stages of residual blocks, global average pooling and one linear layer.

    Parameters
    ----------
    block : :class:`BasicBlock` or :class:`Bottleneck`.
    layers : number of blocks in each of the four stages (He et al., table 1).
    num_classes : outputs of the last layer.
    zero_init_residual : start every block as its shortcut: the scale of its last normalisation is 0 (P. Goyal et al.,
        "Accurate, Large Minibatch SGD", 2017, section 5.1).
    groups, width_per_group : of the 3×3 convolutions of bottlenecks (ResNeXt: 32 and 4; Wide ResNet: 1 and 128).
    replace_stride_with_dilation : three booleans, whether stage 2, 3 and 4 dilate instead of striding.
    norm_layer : makes a normalisation of so many channels; BatchNorm2d if None.

    Takes (N, 3, H, W) of any size from 1×1 (224 in the paper); gives logits (N, num_classes).

    Raises
    ------
    ValueError
        If ``replace_stride_with_dilation`` has not three elements.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] | None = None,
        norm_layer: Norm | None = None,
    ) -> None:
        super().__init__()
        dilate = (False, False, False) if replace_stride_with_dilation is None else replace_stride_with_dilation
        if len(dilate) != 3:
            raise ValueError(f"replace_stride_with_dilation={dilate!r}: expected None or three booleans")
        self._norm_layer = norm_layer or nn.BatchNorm2d
        self.inplanes = 64
        self.dilation = 1
        self.groups = groups
        self.base_width = width_per_group
        self.conv1 = nn.Conv2d(3, self.inplanes, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = self._norm_layer(self.inplanes)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, 64, layers[0])
        self.layer2 = self._make_layer(block, 128, layers[1], stride=2, dilate=dilate[0])
        self.layer3 = self._make_layer(block, 256, layers[2], stride=2, dilate=dilate[1])
        self.layer4 = self._make_layer(block, 512, layers[3], stride=2, dilate=dilate[2])
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        _initialise(self, zero_init_residual)

    def _make_layer(
        self, block: type[BasicBlock | Bottleneck], planes: int, blocks: int, stride: int = 1, dilate: bool = False
    ) -> Sequential:
        """A stage. Only its first block strides; where it would dilate instead, it still has the dilation before it."""
        norm_layer = self._norm_layer
        previous_dilation = self.dilation
        if dilate:
            self.dilation *= stride
            stride = 1
        downsample = None
        if stride != 1 or self.inplanes != planes * block.expansion:
            projected = planes * block.expansion
            downsample = Sequential(conv1x1(self.inplanes, projected, stride), norm_layer(projected))
        shared = (self.groups, self.base_width)
        stage = [block(self.inplanes, planes, stride, downsample, *shared, previous_dilation, norm_layer)]
        self.inplanes = planes * block.expansion
        for _ in range(1, blocks):
            stage.append(block(self.inplanes, planes, 1, None, *shared, self.dilation, norm_layer))
        return Sequential(*stage)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def _initialise(model: Module, zero_init_residual: bool) -> None:
    """He's normal initialisation (fan-out) of the convolutions; the other layers keep their own."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if zero_init_residual:
        for module in model.modules():
            last = {BasicBlock: "bn2", Bottleneck: "bn3"}.get(type(module))
            if last is not None and getattr(getattr(module, last), "weight", None) is not None:
                init.zeros_(getattr(module, last).weight)


@register
def resnet18(**kwargs) -> ResNet:
    """ResNet-18: He et al., table 1. Keyword arguments go to :class:`ResNet`."""
    return ResNet(BasicBlock, (2, 2, 2, 2), **kwargs)


@register
def resnet34(**kwargs) -> ResNet:
    """ResNet-34: He et al., table 1. Keyword arguments go to :class:`ResNet`."""
    return ResNet(BasicBlock, (3, 4, 6, 3), **kwargs)


@register
def resnet50(**kwargs) -> ResNet:
    """ResNet-50: He et al., table 1. Keyword arguments go to :class:`ResNet`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **kwargs)


@register
def resnet101(**kwargs) -> ResNet:
    """ResNet-101: He et al., table 1. Keyword arguments go to :class:`ResNet`."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **kwargs)


@register
def resnet152(**kwargs) -> ResNet:
    """ResNet-152: He et al., table 1. Keyword arguments go to :class:`ResNet`."""
    return ResNet(Bottleneck, (3, 8, 36, 3), **kwargs)


@register
def resnext50_32x4d(**kwargs) -> ResNet:
    """ResNeXt-50, 32 groups of width 4: Xie et al., table 1. Keyword arguments go to :class:`ResNet`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **{"groups": 32, "width_per_group": 4, **kwargs})


@register
def resnext101_32x8d(**kwargs) -> ResNet:
    """ResNeXt-101, 32 groups of width 8, after Xie et al. Keyword arguments go to :class:`ResNet`."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **{"groups": 32, "width_per_group": 8, **kwargs})


@register
def resnext101_64x4d(**kwargs) -> ResNet:
    """ResNeXt-101, 64 groups of width 4: Xie et al., table 4. Keyword arguments go to :class:`ResNet`."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **{"groups": 64, "width_per_group": 4, **kwargs})


@register
def wide_resnet50_2(**kwargs) -> ResNet:
    """ResNet-50 with twice the channels in its 3×3 convolutions (Zagoruyko, Komodakis). Keywords as :class:`ResNet`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **{"width_per_group": 128, **kwargs})


@register
def wide_resnet101_2(**kwargs) -> ResNet:
    """ResNet-101 with twice the channels in its 3×3 convolutions (as wide_resnet50_2). Keywords as :class:`ResNet`."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **{"width_per_group": 128, **kwargs})
