"""Two samples mixed, labels too: mixup and CutMix.

The published forms mix a batch with a permutation of itself, which then depends on the batch's size and on how it is
split among processes. Here an epoch's samples are mixed in pairs: first with second, third with fourth, and so on in
the epoch's (random) order. The two get the same share of each other, drawn from (seed, epoch, pair), so that neither
batch size nor number of processes changes anything as long as no pair is parted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from ..seeding import Purpose, generator


class Mix(Protocol):
    def __call__(self, first: Tensor, second: Tensor, random: np.random.Generator) -> float:
        """Mixes two images (C, H, W) in place and gives the share, 0 to 1, that each has kept of itself."""
        ...


@dataclass(frozen=True)
class Mixup:
    """share * one + (1 - share) * other, share ~ Beta(alpha, alpha).

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, equation (1).
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def __call__(self, first: Tensor, second: Tensor, random: np.random.Generator) -> float:
        share = float(random.beta(self.alpha, self.alpha))
        difference = (second - first).mul_(1 - share)
        first.add_(difference)
        second.sub_(difference)
        return share


@dataclass(frozen=True)
class CutMix:
    """A window is exchanged: of area 1 - share, share ~ Beta(alpha, alpha), about a uniform centre, cut off at the
    border; the share is then that of the pixels that stayed.

    Source: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV
    2019, equations (1) and (2).
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def __call__(self, first: Tensor, second: Tensor, random: np.random.Generator) -> float:
        height, width = first.shape[-2:]
        side = np.sqrt(1 - random.beta(self.alpha, self.alpha))
        rows = _window(height, side, random)
        columns = _window(width, side, random)
        cut = first[:, rows, columns].clone()
        first[:, rows, columns] = second[:, rows, columns]
        second[:, rows, columns] = cut
        return 1 - cut[0].numel() / (height * width)


@dataclass(frozen=True)
class OneOf:
    """One of several ways, each pair drawing its own."""

    ways: tuple[Mix, ...]

    def __post_init__(self) -> None:
        if not self.ways:
            raise ValueError("ways=(): expected one at least")

    def __call__(self, first: Tensor, second: Tensor, random: np.random.Generator) -> float:
        return self.ways[random.integers(len(self.ways))](first, second, random)


def mix_pairs(
    mix: Mix, images: Tensor, labels: Tensor, classes: int, positions: Sequence[int], seed: int, epoch: int
) -> Tensor:
    """Mixes the pairs of a batch, in place.

    Parameters
    ----------
    images, labels
        Floating-point (B, C, H, W) and int64 (B,).
    positions
        The places of the B samples in the epoch's order: 2k and 2k + 1 are a pair. Whoever lacks its partner (the last
        of an odd number; a sample whose partner was skipped) stays as it is.

    Returns
    -------
    Tensor
        float32 (B, classes), the share of every class in every image; rows sum to 1.
    """
    targets = torch_functional.one_hot(labels, classes).to(torch.float32)
    for row in range(len(positions) - 1):
        if positions[row] % 2 == 0 and positions[row + 1] == positions[row] + 1:
            random = generator(Purpose.MIX, seed, epoch, positions[row] // 2)
            share = mix(images[row], images[row + 1], random)
            pair = targets[row : row + 2]
            targets[row : row + 2] = share * pair + (1 - share) * pair.flip(0)
    return targets


def _window(length: int, part: float, random: np.random.Generator) -> slice:
    """A part of an axis about a uniform centre, cut off at the ends."""
    extent = round(length * part)
    start = int(random.integers(length)) - extent // 2
    return slice(max(start, 0), min(start + extent, length))


def _check_alpha(alpha: float) -> None:
    if not alpha > 0:
        raise ValueError(f"alpha={alpha!r}: expected a number above 0")
