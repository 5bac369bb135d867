"""The handwritten digits that ship with scikit-learn: 1797 grey images of 8×8 pixels, as a network of 32×32 sees them.

Each image is sampled bilinearly on a 32×32 grid by one affine map, about its centre: the plain upsampling for
validation and test, a slightly rotated, scaled, sheared and shifted one for every training image of every epoch.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

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
    """All 1797 digits, in scikit-learn's order.

    Read from the file that scikit-learn ships, without importing it: its wheels bring an OpenMP runtime of their own,
    which would fight torch's over the cores.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise ImportError('the digits ship with scikit-learn, which is not installed: pip install "pycv[demo]"')
    table = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.float32)
    images = torch.from_numpy(table[:, :-1] / 16).view(-1, 1, 8, 8)
    return Digits(images, torch.from_numpy(table[:, -1].astype(np.int64)))


def split_digits(digits: Digits, seed: int, validation: float = 0.15, test: float = 0.15) -> Split:
    """A stratified split (each part has every digit in the same share), fixed by its seed."""
    random = np.random.default_rng(seed)
    labels = digits.labels.numpy()
    parts: list[list[np.ndarray]] = [[], [], []]
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        first, second = round(len(members) * validation), round(len(members) * (validation + test))
        for part, chosen in zip(parts, np.split(members, [first, second]), strict=True):
            part.append(chosen)
    chosen_digits, held_out, train = (digits.part(random.permutation(np.concatenate(part))) for part in parts)
    return Split(train, chosen_digits, held_out)


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
