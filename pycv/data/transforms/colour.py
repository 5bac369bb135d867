"""What the pixels are: brightness, contrast, saturation, hue (pictures), and AlexNet's lighting (tensors)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast and saturation times a factor uniform in 1 ± each value (0 at least), hue turned by a part
    of the colour circle uniform in ± ``hue``; in random order. Of a grey picture the last two change nothing.

    Source: Howard, "Some Improvements on Deep Convolutional Neural Network Based Image Classification", 2013,
    section 2.2, in the form of Szegedy et al., CVPR 2015.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected 0 or more")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue={self.hue!r}: expected a number from 0 to 0.5")

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        def factor(spread: float) -> float:
            return random.uniform(max(0.0, 1 - spread), 1 + spread)

        steps: list[tuple[Callable[[Image.Image, float], Image.Image], float]] = [
            (brightness, factor(self.brightness)),
            (contrast, factor(self.contrast)),
            (saturation, factor(self.saturation)),
            (hue, random.uniform(-self.hue, self.hue)),
        ]
        neutral = (1.0, 1.0, 1.0, 0.0)
        for number in random.permutation(4):
            function, amount = steps[number]
            if amount != neutral[number]:
                image = function(image, amount)
        return image


def brightness(image: Image.Image, factor: float) -> Image.Image:
    """Mixed with black: 0 is black, 1 the picture."""
    return ImageEnhance.Brightness(image).enhance(factor)


def contrast(image: Image.Image, factor: float) -> Image.Image:
    """Mixed with the mean of its grey version: 0 is flat grey, 1 the picture."""
    return ImageEnhance.Contrast(image).enhance(factor)


def saturation(image: Image.Image, factor: float) -> Image.Image:
    """Mixed with its grey version: 0 is grey, 1 the picture."""
    return ImageEnhance.Color(image).enhance(factor)


def sharpness(image: Image.Image, factor: float) -> Image.Image:
    """Mixed with a smoothed version: 0 is smooth, 1 the picture."""
    return ImageEnhance.Sharpness(image).enhance(factor)


def hue(image: Image.Image, turn: float) -> Image.Image:
    """Every colour moved along the circle by ``turn`` of its circumference; a grey picture has none."""
    if image.mode == "L":
        return image
    h, s, v = image.convert("HSV").split()
    moved = ((np.asarray(h).astype(np.int16) + round(turn * 255)) % 255).astype(np.uint8)  # 255 is 0 again
    return Image.merge("HSV", (Image.fromarray(moved), s, v)).convert("RGB")


# Of ImageNet's RGB values in 0..1: the standard deviations along the principal axes, and the axes as columns.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


@dataclass(frozen=True)
class Lighting:
    """Adds to every pixel of a tensor (3, H, W) in 0..1 the same random colour: along each principal axis of ImageNet's
    colours, its magnitude times N(0, ``deviation``).

    Source: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012, 4.1.
    """

    deviation: float = 0.1

    def __post_init__(self) -> None:
        if self.deviation < 0:
            raise ValueError(f"deviation={self.deviation!r}: expected 0 or more")

    def __call__(self, image: Tensor, random: np.random.Generator) -> Tensor:
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"image: Lighting takes a tensor (3, H, W), got {tuple(image.shape)}")
        amounts = random.normal(0.0, self.deviation, 3) * EIGENVALUES
        colour = np.asarray(EIGENVECTORS) @ amounts
        return image + torch.from_numpy(colour).to(image.dtype).view(3, 1, 1)
