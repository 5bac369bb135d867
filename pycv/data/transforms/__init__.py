"""Augmentation: small classes that take a picture or tensor and the sample's generator. See ``compose.Transform``."""

from . import presets
from .colour import ColourJitter, Lighting
from .compose import Compose, Sometimes, Transform
from .geometry import CentreCrop, RandomAffine, RandomCrop, RandomFlip, RandomResizedCrop, RandomRotation, Resize
from .mix import CutMix, Mix, Mixup, OneOf
from .randaugment import RandAugment
from .tensor import Normalise, RandomErasing, ToTensor

__all__ = [
    "CentreCrop",
    "ColourJitter",
    "Compose",
    "CutMix",
    "Lighting",
    "Mix",
    "Mixup",
    "Normalise",
    "OneOf",
    "RandAugment",
    "RandomAffine",
    "RandomCrop",
    "RandomErasing",
    "RandomFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "Resize",
    "Sometimes",
    "ToTensor",
    "Transform",
    "presets",
]
