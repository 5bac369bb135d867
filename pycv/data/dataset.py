"""What a dataset is: pictures by index, their labels without decoding anything, and the names of the classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch.utils.data
from PIL import Image

from .errors import DataError


class ImageDataset(torch.utils.data.Dataset, ABC):
    """Pictures with labels; ``dataset[i]`` is (picture, label).

    Attributes
    ----------
    labels
        int64 (N,), from 0 to len(classes) - 1: the classes of all samples, known without decoding one.
    classes
        The names of the classes.
    """

    def __init__(self, labels: np.ndarray, classes: Sequence[str], allow_empty: bool = False) -> None:
        """Checks the labels.

        Raises
        ------
        DataError
            If a label is out of range (the message names the sample) or, unless ``allow_empty``, there is no sample or
            none of some class.
        """
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = tuple(classes)
        self._check_labels(allow_empty)

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """The picture with this index, from 0 to N - 1, in mode ``L`` or ``RGB``; CorruptImage if it is damaged."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Where the sample comes from, for messages and reports."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.image(index), int(self.labels[index])

    def _check_labels(self, allow_empty: bool) -> None:
        if len(self.labels) == 0 and not allow_empty:
            raise DataError(f"{type(self).__name__}: there is no sample")
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
        if len(wrong):
            first = int(wrong[0])
            raise DataError(
                f"{self.name(first)}: label {self.labels[first]} is out of range for {len(self.classes)} classes"
                + (f" ({len(wrong)} such labels)" if len(wrong) > 1 else "")
            )
        empty = np.flatnonzero(np.bincount(self.labels, minlength=len(self.classes)) == 0)
        if len(empty) and not allow_empty:
            named = ", ".join(repr(self.classes[label]) for label in empty[:5])
            more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
            raise DataError(f"no sample of class {named}{more}; allow_empty=True accepts that")


class ArrayImages(ImageDataset):
    """Pictures that are in memory: uint8 (N, H, W) grey or (N, H, W, 3) RGB."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        classes: Sequence[str],
        source: str = "array",
        allow_empty: bool = False,
    ) -> None:
        """``source`` is what the samples' names begin with.

        Raises
        ------
        DataError
            If images and labels are of different number, or for labels as :class:`ImageDataset` says.
        ValueError
            If the images are of another shape or dtype.
        """
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
            raise ValueError(
                f"images: expected uint8 of shape (N, H, W) or (N, H, W, 3), got {images.dtype} {images.shape}"
            )
        if len(images) != len(labels):
            raise DataError(f"{source}: {len(images)} images but {len(labels)} labels")
        self.images, self.source = images, source
        super().__init__(labels, classes, allow_empty)

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.images[index])

    def name(self, index: int) -> str:
        return f"{self.source}[{index}]"


class Subset(ImageDataset):
    """Some samples of a dataset, in the order of ``indices``, with all of its classes."""

    def __init__(self, dataset: ImageDataset, indices: Sequence[int] | np.ndarray) -> None:
        """A class may be empty here.

        Raises
        ------
        ValueError
            If an index is no index of the dataset.
        """
        self.dataset, self.indices = dataset, np.asarray(indices, dtype=np.int64)
        outside = (self.indices < 0) | (self.indices >= len(dataset))
        if outside.any():
            raise ValueError(f"indices: {self.indices[outside][0]} is not an index of a dataset of {len(dataset)}")
        super().__init__(dataset.labels[self.indices], dataset.classes, allow_empty=True)

    def image(self, index: int) -> Image.Image:
        return self.dataset.image(int(self.indices[index]))

    def name(self, index: int) -> str:
        return self.dataset.name(int(self.indices[index]))
