"""Data: datasets by name, splits by seed, augmentation, and loaders whose batches depend on nothing but the seed.

    digits = data.create("digits")
    train, validation, test = data.split(digits, seed=0)
    loader = data.TrainLoader(train, 64, data.transforms.ToTensor(), seed=0, workers=2)

Needs Pillow: ``pip install "pycv[train]"``. Knows neither kernels nor models.
"""

from . import cifar, digits, folder, mnist, shards, synthetic, transforms
from .archive import extract
from .batch import Batch
from .dataset import ArrayImages, ImageDataset, Subset
from .decode import decode
from .errors import CorruptImage, DataError
from .loader import EvalLoader, TrainLoader
from .registry import create, list_datasets
from .splits import Fold, Split, folds, split

__all__ = [
    "ArrayImages",
    "Batch",
    "CorruptImage",
    "DataError",
    "EvalLoader",
    "Fold",
    "ImageDataset",
    "Split",
    "Subset",
    "TrainLoader",
    "cifar",
    "create",
    "decode",
    "digits",
    "extract",
    "folder",
    "folds",
    "list_datasets",
    "mnist",
    "shards",
    "split",
    "synthetic",
    "transforms",
]
