"""RandAugment: a few operations, drawn from fourteen, all at one strength.

Source: Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space", CVPR Workshops
2020, section 3; the operations and their ranges are those of AutoAugment (CVPR 2019, table 6). Here every operation
grows with the magnitude (in the authors' code three of them shrink) and signs are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from . import colour
from .geometry import affine, rotate

LARGEST = 10.0  # the magnitude at which every operation has AutoAugment's largest strength
GREY = 128  # what comes from outside


@dataclass(frozen=True)
class RandAugment:
    """``operations`` times an operation, each equally likely, at ``magnitude`` from 0 to 10."""

    operations: int = 2
    magnitude: float = 9.0

    def __post_init__(self) -> None:
        if not isinstance(self.operations, int) or self.operations < 0:
            raise ValueError(f"operations={self.operations!r}: expected a whole number, 0 or more")
        if not 0 <= self.magnitude <= LARGEST:
            raise ValueError(f"magnitude={self.magnitude!r}: expected a number from 0 to 10")

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        strength = self.magnitude / LARGEST
        for number in random.integers(len(OPERATIONS), size=self.operations):
            sign = 1 if random.random() < 0.5 else -1
            image = _BY_NUMBER[number](image, strength, sign)
        return image


def _shear_x(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return affine(image, np.array([[1, sign * 0.3 * strength], [0, 1]]), np.zeros(2), GREY)


def _shear_y(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return affine(image, np.array([[1, 0], [sign * 0.3 * strength, 1]]), np.zeros(2), GREY)


def _translate_x(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return affine(image, np.eye(2), np.array([sign * 0.45 * strength * image.width, 0.0]), GREY)


def _translate_y(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return affine(image, np.eye(2), np.array([0.0, sign * 0.45 * strength * image.height]), GREY)


def _posterize(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(4 * strength))


def _solarize(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.solarize(image, round(256 * (1 - strength)))


def _enhanced(function: Callable[[Image.Image, float], Image.Image]) -> Callable[..., Image.Image]:
    return lambda image, strength, sign: function(image, 1 + sign * 0.9 * strength)


# Each takes a picture, a strength from 0 to 1 and a sign.
OPERATIONS: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "identity": lambda image, strength, sign: image,
    "autocontrast": lambda image, strength, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, sign: ImageOps.equalize(image),
    "rotate": lambda image, strength, sign: rotate(image, sign * 30 * strength, GREY),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "posterize": _posterize,
    "solarize": _solarize,
    "brightness": _enhanced(colour.brightness),
    "contrast": _enhanced(colour.contrast),
    "saturation": _enhanced(colour.saturation),
    "sharpness": _enhanced(colour.sharpness),
}
_BY_NUMBER = tuple(OPERATIONS.values())
