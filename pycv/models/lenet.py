"""LeNet-5, as it is usually built today and as it was published.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86(11), 1998; section II.B, figure 2, table I; initialisation and squashing from appendix A.
Layers carry the paper's names: C convolution, S subsampling, F fully connected.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module, Parameter, init

from .. import nn
from .registry import register


class LeNet5(Module):
    """The modern form: dense C3, max pooling, ReLU, linear output. 61,706 parameters, 416,520 MACs on 1×32×32.

    Takes (N, in_channels, 32, 32), or 28×28 with ``padding=2``; gives logits (N, num_classes).
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(in_channels, 6, 5, padding=padding)
        self.s2 = nn.MaxPool2d(2)
        self.c3 = nn.Conv2d(6, 16, 5)
        self.s4 = nn.MaxPool2d(2)
        self.c5 = nn.Linear(16 * 5 * 5, 120)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, num_classes)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.s2(self.relu(self.c1(x)))
        x = self.s4(self.relu(self.c3(x)))
        x = self.relu(self.c5(x.flatten(1)))
        return self.output(self.relu(self.f6(x)))


class Subsampling(Module):
    """Sum of each 2×2 window, times a trainable coefficient, plus a trainable bias, both per channel.

    Starts as the mean of the window. (N, C, H, W) to (N, C, H // 2, W // 2).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.AvgPool2d(2)  # of four: times four it is the sum
        self.coefficient = Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.mean(x) * (4 * self.coefficient) + self.bias


class PartialConvolution(Module):
    """C3 of table I: 16 maps, each of which sees 3, 4 or all 6 of the maps of S2. (N, 6, H, W) to (N, 16, H-4, W-4).

    The channels are gathered once per map that sees them; then each kind of map is one grouped convolution.
    """

    TABLE = (
        (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
        (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
        (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
        (0, 1, 2, 3, 4, 5),
    )  # fmt: skip

    gathered: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.of_three = nn.Conv2d(18, 6, 5, groups=6)
        self.of_four = nn.Conv2d(36, 9, 5, groups=9)
        self.of_six = nn.Conv2d(6, 1, 5)
        gathered = torch.tensor([channel for seen in self.TABLE[:15] for channel in seen])
        self.register_buffer("gathered", gathered, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        seen = x[:, self.gathered]
        return torch.cat([self.of_three(seen[:, :18]), self.of_four(seen[:, 18:]), self.of_six(x)], 1)


class RadialBasis(Module):
    """Ten units that hold a 7×12 picture of their digit: minus the squared distance of F6 (N, 84) to each, (N, 10).

    The paper's penalties are the distances themselves; with the sign turned the largest output is the class, and
    the softmax of the outputs is the posterior on which the paper's criterion (its equation 9) is built.
    """

    codes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", digit_codes())

    def forward(self, x: Tensor) -> Tensor:
        return -(x.unsqueeze(1) - self.codes).square().sum(2)


class LeNet5Original(Module):
    """As published: partial C3, trainable subsampling, scaled tanh, fixed radial basis output.

    60,000 trainable parameters and 340,908 connections (section II.B: 122,304 + 5,880 + 151,600 + 2,000 + 48,120 +
    10,164, and 84 into each of the ten outputs). Takes (N, 1, 32, 32), gives minus the squared distances (N, 10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = PartialConvolution()
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = RadialBasis()
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                bound = 2.4 / module.weight[0].numel()  # appendix A: 2.4 over the fan-in
                for parameter in module.parameters():
                    init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        x = squash(self.s2(squash(self.c1(x))))
        x = squash(self.s4(squash(self.c3(x))))
        x = squash(self.c5(x)).flatten(1)
        return self.output(squash(self.f6(x)))


def squash(x: Tensor) -> Tensor:
    """1.7159 tanh(2x/3), which takes ±1 to ±1 (appendix A)."""
    return 1.7159 * torch.tanh(x * (2 / 3))


def digit_codes() -> Tensor:
    """The targets of F6, (10, 84) of +1 (ink) and -1: each digit drawn on 12 rows of 7, in the manner of figure 3."""
    rows = [row.split() for row in _PICTURES.strip().splitlines()]
    digits = ["".join(row[digit] for row in rows) for digit in range(10)]
    return torch.tensor([[1.0 if pixel == "#" else -1.0 for pixel in digit] for digit in digits])


_PICTURES = """
..###.. ...##.. .#####. ####### ##...## ####### ..####. ####### .#####. .#####.
.##.##. ..###.. ##...## #.....# ##...## ##..... .##.... #....## ##...## ##...##
##...## .####.. .....## .....## ##...## ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## ....##. ##...## ##..... ##..... ....##. ##...## ##...##
##...## ...##.. .....## ...##.. ##...## ######. ##.###. ....##. .##.##. ##...##
##...## ...##.. ....##. ..####. ##...## ....### ###..## ...##.. ..###.. ##...##
##...## ...##.. ...##.. .....## .###### .....## ##...## ...##.. .##.##. .######
##...## ...##.. ..##... .....## .....## .....## ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## .....## .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... .....## .....## .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## .....## ##...## ##...## .##.... ##...## ....##.
..###.. .###### ####### .#####. .....## .#####. .#####. .##.... .#####. .####..
"""


@register(size=32, channels=1)
def lenet5(num_classes: int = 10, in_channels: int = 1, padding: int = 0) -> LeNet5:
    """LeNet-5 as it is built today; ``padding=2`` for 28×28 images. See :class:`LeNet5`."""
    return LeNet5(num_classes, in_channels, padding)


@register(size=32, channels=1)
def lenet5_original(num_classes: int = 10) -> LeNet5Original:
    """LeNet-5 as it was published in 1998. See :class:`LeNet5Original`. ValueError for other than ten classes."""
    if num_classes != 10:
        raise ValueError(f"num_classes={num_classes}: lenet5_original holds the pictures of ten digits, no others")
    return LeNet5Original()
