"""From a picture to a tensor, and what is done to tensors: normalise, random erasing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .compose import check_probability, check_range


@dataclass(frozen=True)
class ToTensor:
    """A picture in mode ``L`` or ``RGB`` to float32 (C, H, W), C 1 or 3, with values from 0 to 1."""

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Tensor:
        pixels = np.asarray(image)
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        scaled = np.empty(planes.shape, np.float32)
        np.divide(planes, np.float32(255), out=scaled)  # in one pass: several of torch's take twice the time
        return torch.from_numpy(scaled)


@dataclass(frozen=True)
class Normalise:
    """Subtracts each channel's mean and divides by its deviation: (C, H, W), one of each for all channels or C."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.deviation) or not self.mean:
            raise ValueError(f"mean={self.mean!r}, deviation={self.deviation!r}: expected equally many")
        if min(self.deviation) <= 0:
            raise ValueError(f"deviation={self.deviation!r}: expected numbers above 0")

    def __call__(self, image: Tensor, random: np.random.Generator) -> Tensor:
        if len(self.mean) not in (1, image.shape[0]):
            raise ValueError(f"mean={self.mean!r}: {len(self.mean)} channels, but the image has {image.shape[0]}")
        mean, deviation = self._tensors
        return (image - mean).div_(deviation)

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.mean).view(-1, 1, 1), torch.tensor(self.deviation).view(-1, 1, 1)


@dataclass(frozen=True)
class RandomErasing:
    """With a probability, a window of random area and aspect ratio becomes noise N(0, 1), or ``value`` if given.

    Area uniform in ``scale`` (of the picture), ratio log-uniform in ``ratio``; after ten draws that do not fit the
    picture stays. Source: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, algorithm 1.
    """

    probability: float = 0.25
    scale: tuple[float, float] = (0.02, 0.4)
    ratio: tuple[float, float] = (0.3, 10 / 3)
    value: float | None = None

    def __post_init__(self) -> None:
        check_probability(self.probability)
        check_range(self.scale, "scale", most=1.0)
        check_range(self.ratio, "ratio")

    def __call__(self, image: Tensor, random: np.random.Generator) -> Tensor:
        if random.random() >= self.probability:
            return image
        channels, height, width = image.shape
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * random.uniform(*self.scale)
            ratio = math.exp(random.uniform(low, high))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < h < height and 0 < w < width:
                top, left = random.integers((height - h + 1, width - w + 1))
                erased = image.clone()
                erased[:, top : top + h, left : left + w] = self._filling((channels, h, w), random)
                return erased
        return image

    def _filling(self, shape: tuple[int, int, int], random: np.random.Generator) -> Tensor:
        if self.value is not None:
            return torch.tensor(float(self.value))
        return torch.from_numpy(random.standard_normal(shape, dtype=np.float32))
