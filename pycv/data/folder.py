"""Images in one folder per class, in folders for the splits or not: the layout of ImageNet (ILSVRC 2012) is
``train/CLASS/*.JPEG`` and ``val/CLASS/*.JPEG``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from .dataset import ImageDataset
from .decode import EXTENSIONS, MAX_PIXELS, check_mode, decode
from .errors import DataError
from .registry import check_path, register

SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test",)}


class ImageFolder(ImageDataset):
    """One class per folder, in the order of the folders' names; a class's images in the order of their paths."""

    def __init__(
        self, root: Path, classes: list[str], mode: str = "RGB", max_pixels: int = MAX_PIXELS, allow_empty: bool = False
    ) -> None:
        """``classes`` are the folders of ``root`` to read; a file that is no image by its name is passed over."""
        self.root, self.mode, self.max_pixels = root, check_mode(mode), max_pixels
        # As one array, not as a million objects: each worker would come to copy those as it counts references to them.
        files = [np.array([os.fsencode(file) for file in _images(root, name)], np.bytes_) for name in classes]
        self._files = np.concatenate(files)
        if not len(self._files):
            raise DataError(f"{root}: no image ({', '.join(EXTENSIONS)}) in its {len(classes)} folders")
        super().__init__(np.repeat(np.arange(len(classes)), [len(part) for part in files]), classes, allow_empty)

    def image(self, index: int) -> Image.Image:
        path = self.path(index)
        return decode(path, str(path), self.mode, self.max_pixels)

    def path(self, index: int) -> Path:
        """The file of a sample."""
        return self.root / os.fsdecode(bytes(self._files[index]))

    def name(self, index: int) -> str:
        return str(self.path(index))


@register("folder")
@register("imagenet")
def folder(
    path: str | Path | None,
    split: str | None = None,
    mode: str = "RGB",
    max_pixels: int = MAX_PIXELS,
    allow_empty: bool = False,
) -> ImageFolder:
    """Images in one folder per class.

    Parameters
    ----------
    path
        The folder of the classes' folders or, with a split, of the splits' folders. Classes are those of ``train``
        where that is there, so that they have the same numbers in every split.
    split
        ``train``, ``val`` (its folder may also be called ``validation``) or ``test``; None: ``train`` if there is one,
        else the path itself.
    mode
        ``L`` or ``RGB``: what every image is converted to.
    max_pixels
        An image of more is taken for a decompression bomb: CorruptImage.

    Raises
    ------
    FileNotFoundError
        If the path or the split's folder is not there.
    DataError
        If there is no class or no image, a class is empty (unless ``allow_empty``), or a split has a class that
        ``train`` lacks.
    """
    root = check_path(path, "a folder with a folder for each class")
    if not root.is_dir():
        raise DataError(f"path={str(root)!r}: a file; expected a folder (pycv.data.extract unpacks archives)")
    training = _split_folder(root, "train")
    if split is None:
        part = training or root
    else:
        if split not in SPLITS:
            raise ValueError(f"split={split!r}: expected {' or '.join(map(repr, SPLITS))}")
        found = _split_folder(root, split)
        if found is None:
            raise FileNotFoundError(f"{root / split}: no such folder")
        part = found
    own = _folders(part)
    if not own:
        raise DataError(f"{part}: no folder in it, expected one for each class")
    classes = own if training is None else _folders(training)
    if unknown := sorted(set(own) - set(classes)):
        raise DataError(f"{part / unknown[0]}: a class that {training} lacks")
    return ImageFolder(part, classes, mode, max_pixels, allow_empty)


def _split_folder(root: Path, split: str) -> Path | None:
    return next((root / name for name in SPLITS[split] if (root / name).is_dir()), None)


def _folders(path: Path) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _images(root: Path, name: str) -> list[str]:
    """Paths, relative to the root, of the images in a class's folder and those below it."""
    found = []
    for place, _, files in os.walk(root / name):
        relative = os.path.relpath(place, root)
        found += [os.path.join(relative, file) for file in files if file.lower().endswith(EXTENSIONS)]
    return sorted(found)
