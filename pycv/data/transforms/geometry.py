"""Where the pixels go: resize, crops, flip, rotation, affine maps. Pictures (PIL) in, pictures out.

Sizes are (height, width), an int stands for both; Pillow's own are (width, height).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..decode import MAX_PIXELS
from ..errors import CorruptImage
from .compose import check_probability, check_range

Size = int | tuple[int, int]
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Resize:
    """To (height, width), or, for an int, so that the shorter side has this length; antialiased where it shrinks.

    CorruptImage where that would be more pixels than ``decode`` takes: a line of pixels becomes a bomb.
    """

    size: Size
    filter: str = "bilinear"

    def __post_init__(self) -> None:
        pair(self.size)
        resampling(self.filter)

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        height, width = pair(self.size)
        if isinstance(self.size, int):
            shorter = min(image.size)
            height, width = (max(1, int(self.size * side / shorter)) for side in (image.height, image.width))
        if height * width > MAX_PIXELS:
            was, would = f"{image.width}×{image.height}", f"{width}×{height}"
            raise CorruptImage(f"a picture of {was} pixels would be resized to {would}: at most {MAX_PIXELS} in all")
        return image.resize((width, height), resampling(self.filter))


@dataclass(frozen=True)
class CentreCrop:
    """The middle of the picture, of this size; what lies outside of a smaller picture is black."""

    size: Size

    def __post_init__(self) -> None:
        pair(self.size)

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        height, width = pair(self.size)
        return crop(image, (image.height - height) // 2, (image.width - width) // 2, height, width)


@dataclass(frozen=True)
class RandomCrop:
    """A window of this size anywhere in the picture, which is padded with black first.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2 (CIFAR-10: 4 pixels).
    """

    size: Size
    padding: int = 0

    def __post_init__(self) -> None:
        pair(self.size)
        if self.padding < 0:
            raise ValueError(f"padding={self.padding}: expected 0 or more")

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        (height, width), pad = pair(self.size), self.padding
        rows, columns = image.height + 2 * pad - height, image.width + 2 * pad - width
        if rows < 0 or columns < 0:
            raise ValueError(f"size={self.size!r}: larger than a {image.height}×{image.width} image padded by {pad}")
        top, left = int(random.integers(rows + 1)), int(random.integers(columns + 1))
        return crop(image, top - pad, left - pad, height, width)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A window of random area and aspect ratio, resized: area uniform in ``scale`` (of the picture), ratio (width to
    height) log-uniform in ``ratio``. If ten draws do not fit, the largest middle window of an allowed ratio.

    Source: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6.
    """

    size: Size
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    filter: str = "bilinear"

    def __post_init__(self) -> None:
        pair(self.size)
        resampling(self.filter)
        check_range(self.scale, "scale", most=1.0)
        check_range(self.ratio, "ratio")

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        top, left, height, width = self.window(image.height, image.width, random)
        out_height, out_width = pair(self.size)
        cut = crop(image, top, left, height, width)
        return cut.resize((out_width, out_height), resampling(self.filter))

    def window(self, height: int, width: int, random: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of a window in a picture of this size."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * random.uniform(*self.scale)
            ratio = math.exp(random.uniform(low, high))
            h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < h <= height and 0 < w <= width:
                return int(random.integers(height - h + 1)), int(random.integers(width - w + 1)), h, w
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        h = min(height, max(1, round(width / ratio)))
        w = min(width, max(1, round(h * ratio)))
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class RandomFlip:
    """Left and right exchanged, with a probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self.probability)

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        if random.random() >= self.probability:
            return image
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@dataclass(frozen=True)
class RandomAffine:
    """A random affine map about the centre, bilinear; what comes from outside is ``fill``.

    Each is uniform in ± its value: ``rotation`` in degrees, ``shift`` of the picture's sides, ``scale`` and ``shear``
    as parts of 1. Source: Simard et al., "Best Practices for Convolutional Neural Networks Applied to Visual Document
    Analysis", ICDAR 2003, section 2.
    """

    rotation: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    fill: int = 0

    def __post_init__(self) -> None:
        for name in ("rotation", "shift", "scale", "shear"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected 0 or more")
        if self.scale >= 1:
            raise ValueError(f"scale={self.scale!r}: expected less than 1")

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        rotation, down, right, stretch_y, stretch_x, shear = random.uniform(-1, 1, 6)
        angle = math.radians(rotation * self.rotation)
        cos, sin = math.cos(angle), math.sin(angle)
        turn = np.array([[cos, sin], [-sin, cos]])
        lean = np.array([[1.0, shear * self.shear], [0.0, 1.0]])
        size = np.diag([1 + stretch_x * self.scale, 1 + stretch_y * self.scale])
        moved = self.shift * np.array([right * image.width, down * image.height])
        return affine(image, turn @ lean @ size, moved, self.fill)


@dataclass(frozen=True)
class RandomRotation:
    """About the centre by an angle uniform in ± ``degrees``, bilinear; what comes from outside is ``fill``."""

    degrees: float
    fill: int = 0

    def __post_init__(self) -> None:
        if self.degrees < 0:
            raise ValueError(f"degrees={self.degrees!r}: expected 0 or more")

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        return rotate(image, random.uniform(-self.degrees, self.degrees), self.fill)


def rotate(image: Image.Image, degrees: float, fill: int = 0) -> Image.Image:
    """The picture turned about its centre, counter-clockwise."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return affine(image, np.array([[cos, -sin], [sin, cos]]), np.zeros(2), fill)


def affine(image: Image.Image, linear: np.ndarray, shift: np.ndarray, fill: int = 0) -> Image.Image:
    """The picture under a map, bilinear: the output at (x, y) is the input at centre + linear @ ((x, y) - centre) -
    shift, ``linear`` (2, 2) and ``shift`` (2,) in pixels, x to the right and y down."""
    centre = np.array([image.width, image.height]) / 2
    offset = centre - linear @ centre - shift
    coefficients = (*linear[0], offset[0], *linear[1], offset[1])
    colour = (fill,) * len(image.getbands())
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=colour
    )


def crop(image: Image.Image, top: int, left: int, height: int, width: int) -> Image.Image:
    """A window of the picture; what lies outside of it is black."""
    return image.crop((left, top, left + width, top + height))


def pair(size: Size) -> tuple[int, int]:
    """(height, width); ValueError unless both are whole numbers above 0."""
    both = (size, size) if isinstance(size, int) else size
    if not (isinstance(both, tuple) and len(both) == 2 and all(isinstance(side, int) and side > 0 for side in both)):
        raise ValueError(f"size={size!r}: expected a whole number above 0, or two as (height, width)")
    return both


def resampling(filter: str) -> Image.Resampling:
    """Pillow's constant; ValueError if there is no such filter."""
    if filter not in FILTERS:
        raise ValueError(f"filter={filter!r}: expected one of {', '.join(FILTERS)}")
    return FILTERS[filter]
