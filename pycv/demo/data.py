"""The handwritten digits that ship with scikit-learn: 1797 grey images of 8×8 pixels, as a network of 32×32 sees them.

Each image is sampled bilinearly on a 32×32 grid by one affine map, about its centre: the plain upsampling for
validation and test, a slightly rotated, scaled, sheared and shifted one for every training image of every epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as torch_functional

SIZE = 32  # pixels of the side that the network sees
MARGIN = 1.15  # the grid reaches this far beyond the image's border, as half images: room to shift into


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, 8, 8) with values from 0 (paper) to 1 (ink), and their labels (N,), 0 to 9."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, indices: np.ndarray) -> Digits:
        """The digits with these indices."""
        chosen = torch.from_numpy(indices)
        return Digits(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Split:
    """Training, validation and test digits; no image is in two of them."""

    train: Digits
    validation: Digits
    test: Digits


@dataclass(frozen=True)
class Augmentation:
    """How far a training image may be bent: uniform in ± each value."""

    rotation: float = 12.0  # degrees
    shift: float = 0.10  # of the image's side
    scale: float = 0.12
    shear: float = 0.15


def load_digits() -> Digits:
    """All 1797 digits, in scikit-learn's order."""
    from sklearn import datasets

    loaded = datasets.load_digits()
    images = torch.from_numpy(loaded.images.astype(np.float32) / 16).unsqueeze(1)
    return Digits(images, torch.from_numpy(loaded.target.astype(np.int64)))


def split_digits(digits: Digits, seed: int, validation: float = 0.15, test: float = 0.15) -> Split:
    """A stratified split (each part has the digits in equal shares), fixed by its seed."""
    from sklearn.model_selection import train_test_split

    labels = digits.labels.numpy()
    rest, held_out = train_test_split(np.arange(len(digits)), test_size=test, stratify=labels, random_state=seed)
    share = validation / (1 - test)
    train, chosen = train_test_split(rest, test_size=share, stratify=labels[rest], random_state=seed)
    return Split(digits.part(train), digits.part(chosen), digits.part(held_out))


def upsampled(images: Tensor) -> Tensor:
    """Images (N, 1, 8, 8) to (N, 1, 32, 32), bilinear, roughly of mean 0 and variance 1."""
    return _sampled(images, torch.eye(2).expand(len(images), 2, 2), torch.zeros(len(images), 2))


def augmented(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """As :func:`upsampled`, each image under its own random affine map."""

    def uniform(limit: float) -> Tensor:
        return (torch.rand(len(images), generator=generator) * 2 - 1) * limit

    angle = uniform(how.rotation * np.pi / 180)
    cos, sin = torch.cos(angle), torch.sin(angle)
    scale_x, scale_y, shear = 1 + uniform(how.scale), 1 + uniform(how.scale), uniform(how.shear)
    linear = torch.stack([cos * scale_x, cos * shear - sin, sin * scale_x, sin * shear + cos * scale_y], 1)
    shift = torch.stack([uniform(2 * how.shift), uniform(2 * how.shift)], 1)
    return _sampled(images, linear.view(-1, 2, 2), shift)


def _sampled(images: Tensor, linear: Tensor, shift: Tensor) -> Tensor:
    theta = torch.cat([linear * MARGIN, shift.unsqueeze(2)], 2)
    grid = torch_functional.affine_grid(theta, [len(images), 1, SIZE, SIZE], align_corners=False)
    sampled = torch_functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (sampled - MEAN) / DEVIATION


MEAN, DEVIATION = 0.23, 0.30  # of the upsampled digits
