"""The usual transforms of the usual datasets, for training and for evaluation."""

from __future__ import annotations

from .colour import Lighting
from .compose import Compose, Transform
from .geometry import CentreCrop, RandomAffine, RandomCrop, RandomFlip, RandomResizedCrop, Resize
from .randaugment import RandAugment
from .tensor import Normalise, RandomErasing, ToTensor

# Mean and deviation of the training pixels of each channel, from 0 to 1.
IMAGENET = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10 = Normalise((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100 = Normalise((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
MNIST = Normalise((0.1307,), (0.3081,))
DIGITS = Normalise((0.305,), (0.376,))  # at 8×8


def imagenet_train(size: int = 224, randaugment: RandAugment | None = None, erasing: float = 0.0) -> Compose:
    """Random resized crop and flip (ResNet's recipe), optionally RandAugment and random erasing."""
    steps: list[Transform] = [RandomResizedCrop(size), RandomFlip()]
    steps += [randaugment] if randaugment else []
    steps += [ToTensor(), IMAGENET]
    return Compose(*steps, *([RandomErasing(erasing)] if erasing else []))


def imagenet_eval(size: int = 224, resize: int = 256) -> Compose:
    """Shorter side to ``resize``, the middle ``size``×``size``."""
    return Compose(Resize(resize), CentreCrop(size), ToTensor(), IMAGENET)


def alexnet_train(size: int = 224) -> Compose:
    """The AlexNet paper's: the middle 256×256, a random window of it, flip, lighting."""
    return Compose(Resize(256), CentreCrop(256), RandomCrop(size), RandomFlip(), ToTensor(), Lighting(0.1), IMAGENET)


def cifar_train(normalise: Normalise = CIFAR10) -> Compose:
    """Random crop of the image padded by 4 pixels, and flip."""
    return Compose(RandomCrop(32, 4), RandomFlip(), ToTensor(), normalise)


def cifar_eval(normalise: Normalise = CIFAR10) -> Compose:
    return Compose(ToTensor(), normalise)


def digits_train(size: int = 32, normalise: Normalise = DIGITS) -> Compose:
    """Digits, MNIST and their like: resized, then turned, moved, stretched and sheared a little."""
    return Compose(Resize(size), RandomAffine(rotation=12, shift=0.1, scale=0.12, shear=0.15), ToTensor(), normalise)


def digits_eval(size: int = 32, normalise: Normalise = DIGITS) -> Compose:
    return Compose(Resize(size), ToTensor(), normalise)
