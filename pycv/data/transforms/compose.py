"""What a transform is, and several one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

# Takes a picture (PIL, mode L or RGB) before ToTensor and a tensor (C, H, W) after it, with the generator of the
# sample; gives a new one and leaves what it took as it was. Nothing else decides the result.
Transform = Callable[[Any, np.random.Generator], Any]


class Compose:
    """One transform after the other, all drawing from the same generator in turn."""

    def __init__(self, *transforms: Transform) -> None:
        self.transforms = transforms

    def __call__(self, image: Any, random: np.random.Generator) -> Any:
        for transform in self.transforms:
            image = transform(image, random)
        return image

    def __repr__(self) -> str:
        lines = "".join(f"    {transform!r},\n" for transform in self.transforms)
        return f"Compose(\n{lines})"


class Sometimes:
    """A transform with a probability, else nothing."""

    def __init__(self, transform: Transform, probability: float) -> None:
        self.transform = transform
        self.probability = check_probability(probability)

    def __call__(self, image: Any, random: np.random.Generator) -> Any:
        return self.transform(image, random) if random.random() < self.probability else image

    def __repr__(self) -> str:
        return f"Sometimes({self.transform!r}, {self.probability})"


def check_probability(probability: float, name: str = "probability") -> float:
    """The probability itself; ValueError if it is not from 0 to 1."""
    if not 0 <= probability <= 1:
        raise ValueError(f"{name}={probability!r}: expected a number from 0 to 1")
    return probability


def check_range(bounds: tuple[float, float], name: str, least: float = 0.0, most: float = float("inf")) -> None:
    """ValueError unless least <= low <= high <= most, and low > 0 where least is 0 (what it scales must not vanish)."""
    low, high = bounds
    if not least <= low <= high <= most or low == 0:
        raise ValueError(f"{name}={bounds!r}: expected 0 < low <= high" + (f" <= {most}" if most < np.inf else ""))
