"""Networks that share no weights, for comparison: one layer, several layers, and layers of maxout units.

Sources: F. Rosenblatt, "The Perceptron", Psychological Review 65(6), 1958. Y. LeCun et al., "Gradient-Based Learning
Applied to Document Recognition", Proceedings of the IEEE 86(11), 1998: section III.C, the linear classifier and
28×28-300-100-10 (here with ReLU for the scaled tanh). I. Goodfellow et al., "Maxout Networks", ICML 2013: equation 2,
section 5.1 (two maxout layers with dropout; 240 units of 5 pieces are those of the authors' code).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import Dropout, Module, Sequential

from .. import nn
from .registry import register


class Perceptron(Module):
    """One linear layer: (N, ...) of ``in_features`` values each to logits (N, num_classes).

    Rosenblatt's units answer yes or no; here their sums are the logits.
    """

    def __init__(self, num_classes: int = 10, in_features: int = 28 * 28) -> None:
        super().__init__()
        self.output = nn.Linear(in_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(x.flatten(1))


class MLP(Module):
    """Linear layers with ReLU between them: (N, ...) of ``in_features`` values each to logits (N, num_classes).

    Parameters
    ----------
    num_classes : outputs of the last layer.
    in_features : values of an image.
    hidden : widths of the hidden layers.
    dropout : probability of a zero after each hidden layer.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_features: int = 28 * 28,
        hidden: Sequence[int] = (300, 100),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = Sequential()
        for width in hidden:
            self.layers.extend([nn.Linear(in_features, width), nn.ReLU(inplace=True), Dropout(dropout)])
            in_features = width
        self.output = nn.Linear(in_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.layers(x.flatten(1)))


class Maxout(Module):
    """Each unit is the largest of ``pieces`` linear functions: (N, in_features) to (N, out_features)."""

    def __init__(self, in_features: int, out_features: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features * pieces)
        self.largest = nn.MaxPool1d(pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.largest(self.linear(x).unsqueeze(1)).squeeze(1)


class MaxoutMLP(Module):
    """Maxout layers and a linear one: (N, ...) of ``in_features`` values each to logits (N, num_classes).

    Parameters
    ----------
    num_classes : outputs of the last layer.
    in_features : values of an image.
    hidden : units of the hidden layers.
    pieces : linear functions of each unit.
    input_dropout, dropout : probability of a zero in the image, and after each hidden layer.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_features: int = 28 * 28,
        hidden: Sequence[int] = (240, 240),
        pieces: int = 5,
        input_dropout: float = 0.2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.layers = Sequential(Dropout(input_dropout))
        for width in hidden:
            self.layers.extend([Maxout(in_features, width, pieces), Dropout(dropout)])
            in_features = width
        self.output = nn.Linear(in_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.layers(x.flatten(1)))


@register(size=28, channels=1)
def perceptron(**kwargs) -> Perceptron:
    """One layer, 7,850 parameters. Keyword arguments go to :class:`Perceptron`."""
    return Perceptron(**kwargs)


@register(size=28, channels=1)
def mlp(**kwargs) -> MLP:
    """784-300-100-10, 266,610 parameters. Keyword arguments go to :class:`MLP`."""
    return MLP(**kwargs)


@register(size=28, channels=1)
def maxout_mlp(**kwargs) -> MaxoutMLP:
    """784-240-240-10 with 5 pieces. Keyword arguments go to :class:`MaxoutMLP`."""
    return MaxoutMLP(**kwargs)
