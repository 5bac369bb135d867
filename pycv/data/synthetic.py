"""Pictures made from numbers, for smoke runs and benchmarks: gratings whose direction tells the class.

Class k of K is a sinusoid in direction k π / K, of random phase, wavelength and colour, under noise. It takes a network
some steps to tell them apart, so that a loss which does not fall shows.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from .dataset import ImageDataset
from .decode import check_mode
from .registry import check_no_path, check_split, register
from .seeding import Purpose, check_seed, generator

NOISE = 25.0  # deviation, of 255


class Synthetic(ImageDataset):
    """``samples`` pictures of ``size``×``size``, the classes in turn; each is made anew when asked for, the same."""

    def __init__(self, samples: int, size: int, classes: int, seed: int, mode: str, part: int = 0) -> None:
        self.size, self.seed, self.mode, self.part = size, seed, mode, part
        names = [f"{180 * k / classes:.0f}°" for k in range(classes)]
        super().__init__(np.arange(samples) % classes, names, allow_empty=samples < classes)

    def image(self, index: int) -> Image.Image:
        random = generator(Purpose.SYNTHETIC, self.seed, self.part, index)
        angle = np.pi * self.labels[index] / len(self.classes)
        wavelength = self.size * random.uniform(0.15, 0.3)
        at = np.arange(self.size) * (2 * np.pi / wavelength)
        wave = np.sin(np.cos(angle) * at + np.sin(angle) * at[:, None] + random.uniform(0, 2 * np.pi))
        channels = 3 if self.mode == "RGB" else 1
        strength = random.uniform(30, 100, channels)
        pixels = 127.5 + strength * wave[:, :, None] + NOISE * random.standard_normal((self.size, self.size, channels))
        clipped = np.clip(pixels, 0, 255).astype(np.uint8)
        return Image.fromarray(clipped if channels == 3 else clipped[:, :, 0])

    def name(self, index: int) -> str:
        return f"synthetic[{index}]"


@register("synthetic")
def synthetic(
    path: None = None,
    split: str | None = None,
    samples: int = 1000,
    size: int = 32,
    classes: int = 10,
    seed: int = 0,
    mode: str = "RGB",
) -> Synthetic:
    """Gratings; ``train`` and ``test`` are different ones of the same kind.

    Raises
    ------
    ValueError
        If a number is below 1, or the mode is neither ``L`` nor ``RGB``.
    """
    check_no_path(path, "synthetic")
    splits = ("train", "test")
    part = splits.index(check_split(split, splits))
    for name, value in {"samples": samples, "size": size, "classes": classes}.items():
        if value < 1:
            raise ValueError(f"{name}={value!r}: expected a whole number above 0")
    check_mode(mode)
    return Synthetic(samples, size, classes, check_seed(seed), mode, part)
