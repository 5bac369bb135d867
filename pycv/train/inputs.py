"""From a recipe to pictures: the three parts of the data, and what is done to each picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .. import models
from ..data import DataError, ImageDataset, create, folds, split
from ..data import transforms as t
from ..data.transforms.geometry import crop
from .recipe import Augment, Data, Recipe

CROPS = (1, 2, 5, 10)
NORMALISE = {
    "digits": t.presets.DIGITS,
    "mnist": t.presets.MNIST,
    "cifar10": t.presets.CIFAR10,
    "cifar100": t.presets.CIFAR100,
    "imagenet": t.presets.IMAGENET,
}
# The shorter side of a picture beside that of the window which the network sees.
ENLARGED = {"imagenet": 256 / 224, "alexnet": 256 / 227}
ENLARGED_FOR_CROPS = 1.125


@dataclass(frozen=True)
class Parts:
    """Training, validation (which decides) and test, which is looked at once, at the end, or not there."""

    train: ImageDataset
    validation: ImageDataset
    test: ImageDataset | None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    def by_name(self, name: str) -> ImageDataset:
        """One of the three; ValueError if it is not there."""
        part = getattr(self, name)
        if part is None:
            raise ValueError(f"split={name!r}: the recipe names no test data (data.test, data.test_share, data.folds)")
        return part


def parts(data: Data, seed: int) -> Parts:
    """The parts that a recipe names or cuts from the training data, by ``data.seed`` or else ``seed``, the run's, every
    class in the same share.

    Raises
    ------
    ValueError
        If there is no such dataset or split, or nothing to validate with.
    FileNotFoundError
        If the path is not there.
    DataError
        If the files are not what they should be, or a class is empty in a part.
    """
    seed = seed if data.seed is None else data.seed
    train = _opened(data, data.train)
    validation = None if data.validation is None else _opened(data, data.validation)
    test: ImageDataset | None = None if data.test is None else _opened(data, data.test)
    if data.folds == 1:
        raise ValueError("data.folds=1: expected 2 or more, or 0 for none")
    if data.folds:
        if data.fold >= data.folds:
            raise ValueError(f"data.fold={data.fold}: expected less than data.folds={data.folds}")
        train, test = folds(train, data.folds, seed)[data.fold]
    shares = {
        "validation": data.validation_share if validation is None else 0.0,
        "test": data.test_share if test is None else 0.0,
    }
    if any(shares.values()):
        cut = split(train, seed, **shares)
        train = cut.train
        validation = cut.validation if shares["validation"] else validation
        test = cut.test if shares["test"] else test
    if validation is None:
        raise ValueError("data.validation_share=0: nothing to validate with; name a split (data.validation) or a share")
    for other in (validation, test):
        if other is not None and other.classes != train.classes:
            raise DataError(f"{len(train.classes)} classes to train on, but others, {len(other.classes)}, to judge by")
    return Parts(train, validation, test)


def _opened(data: Data, part: str | None) -> ImageDataset:
    of_files = {"on_corrupt": data.on_corrupt} if data.name == "shards" else {}  # else only pictures can be skipped
    try:
        return create(data.name, data.path, part, **of_files | data.options)
    except TypeError as error:
        raise ValueError(f"data.options={data.options}: {error}") from None
    except ValueError as error:
        if data.path is None and str(error).startswith("path=None"):
            raise ValueError(f"data.path (--data): none is given, {str(error).removeprefix('path=None: ')}") from None
        raise


def on_synthetic_data(recipe: Recipe, samples: int) -> Recipe:
    """The recipe with so many generated pictures in place of its data, as its network wants them: for smoke runs."""
    options: dict[str, Any] = {"samples": samples, "size": recipe.augment.size, "mode": picture_mode(recipe)}
    data = Data(name="synthetic", options=options, test="test", validation_share=0.2, workers=recipe.data.workers)
    return replace(recipe, data=data)


def picture_mode(recipe: Recipe) -> str:
    """``L`` or ``RGB``: what the recipe's network takes."""
    channels = recipe.model.arguments.get("in_channels", models.image_shape(recipe.model.name)[0])
    return recipe.data.options.get("mode", "L" if channels == 1 else "RGB")


# ------------------------------------------------------------------------------------------------- transforms


def training_transform(augment: Augment) -> t.Transform:
    """From a picture to what the network is trained on: float32 (C, size, size)."""
    size = augment.size
    presets: dict[str, list[t.Transform]] = {
        "plain": _middle(size),
        "digits": [*_middle(size), t.RandomAffine(rotation=12, shift=0.1, scale=0.12, shear=0.15)],
        "cifar": [*_middle(size), t.RandomCrop(size, max(1, size // 8)), t.RandomFlip()],
        "imagenet": [t.RandomResizedCrop(size), t.RandomFlip()],
        "alexnet": [*_middle(_enlarged(augment, False)), t.RandomCrop(size), t.RandomFlip()],
    }
    steps = presets[augment.preset]
    if augment.rotation:
        steps.append(t.RandomRotation(augment.rotation))
    if augment.jitter:
        steps.append(t.ColourJitter(augment.jitter, augment.jitter, augment.jitter, augment.jitter / 4))
    if augment.randaugment:
        steps.append(t.RandAugment(augment.randaugment, augment.magnitude))
    steps.append(t.ToTensor())
    if augment.preset == "alexnet":
        steps.append(t.Lighting(0.1))
    steps.append(NORMALISE[augment.normalise])
    if augment.erasing:
        steps.append(t.RandomErasing(augment.erasing))
    return t.Compose(*steps)


def evaluation_transform(augment: Augment, crops: int = 1) -> t.Transform:
    """From a picture to what the network is judged on: float32 (C, size, size), or (crops, C, size, size)."""
    finish = t.Compose(t.ToTensor(), NORMALISE[augment.normalise])
    return t.Compose(t.Resize(_enlarged(augment, crops > 2)), Crops(augment.size, crops, finish))


def mix(augment: Augment) -> t.Mix | None:
    """How pairs of pictures are mixed, if at all."""
    ways: list[t.Mix] = []
    if augment.mixup:
        ways.append(t.Mixup(augment.mixup))
    if augment.cutmix:
        ways.append(t.CutMix(augment.cutmix))
    if not ways:
        return None
    return ways[0] if len(ways) == 1 else t.OneOf(tuple(ways))


@dataclass(frozen=True)
class Crops:
    """Test-time crops: the middle; with its mirror image (2); with the corners (5); all of these mirrored, too (10).

    One is (C, size, size), several are (count, C, size, size). Source: Krizhevsky et al., NIPS 2012, section 4.1.
    """

    size: int
    count: int
    finish: t.Transform

    def __post_init__(self) -> None:
        if self.count not in CROPS:
            raise ValueError(f"crops={self.count!r}: expected one of {', '.join(map(str, CROPS))}")

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Tensor:
        down, right = image.height - self.size, image.width - self.size
        places = [(down // 2, right // 2)]
        if self.count >= 5:
            places += [(0, 0), (0, right), (down, 0), (down, right)]
        windows = [crop(image, top, left, self.size, self.size) for top, left in places]
        if self.count in (2, 10):
            windows += [ImageOps.mirror(window) for window in windows]
        tensors = [self.finish(window, random) for window in windows]
        return tensors[0] if self.count == 1 else torch.stack(tensors)


def _middle(size: int) -> list[t.Transform]:
    return [t.Resize(size), t.CentreCrop(size)]


def _enlarged(augment: Augment, for_crops: bool) -> int:
    """The shorter side that pictures are resized to before a window is cut out."""
    least = ENLARGED_FOR_CROPS if for_crops else 1.0
    return round(augment.size * ENLARGED.get(augment.preset, least))
