"""From places in an epoch to a batch of tensors: decode, transform, stack, mix. Runs in the workers."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.utils.data
from torch import Tensor

from .dataset import ImageDataset
from .errors import CorruptImage, DataError
from .order import Place
from .seeding import Purpose, generator
from .transforms import Mix, Transform
from .transforms.mix import mix_pairs

ON_CORRUPT = ("refuse", "skip")


class Batch(NamedTuple):
    """One step's samples of one process."""

    images: Tensor  # float32 (B, C, H, W)
    labels: Tensor  # int64 (B,); of mixed images, those before mixing
    indices: Tensor  # int64 (B,), into the dataset
    shares: Tensor | None  # float32 (B, classes), the share of every class; None where nothing is mixed
    skipped: tuple[str, ...]  # why samples were left out, one message each

    @property
    def targets(self) -> Tensor:
        """What a loss compares with: the shares where images are mixed, else the labels."""
        return self.labels if self.shares is None else self.shares


class Maker(torch.utils.data.Dataset):
    """Makes batches of a dataset: ``maker.__getitems__(places)``, which torch's DataLoader calls in its workers."""

    def __init__(
        self, dataset: ImageDataset, transform: Transform, seed: int, on_corrupt: str = "refuse", mix: Mix | None = None
    ) -> None:
        """ValueError if ``on_corrupt`` is neither ``refuse`` nor ``skip``."""
        if on_corrupt not in ON_CORRUPT:
            raise ValueError(f"on_corrupt={on_corrupt!r}: expected {' or '.join(map(repr, ON_CORRUPT))}")
        self.dataset, self.transform, self.seed, self.mix = dataset, transform, seed, mix
        self.on_corrupt = on_corrupt

    def __len__(self) -> int:
        return len(self.dataset)

    def image(self, place: Place) -> Tensor:
        """The transformed image of one place; its random numbers follow from (seed, epoch, index)."""
        random = generator(Purpose.SAMPLE, self.seed, place.epoch, place.sample)
        image = self.transform(self.dataset.image(place.sample), random)
        if not isinstance(image, Tensor):
            raise TypeError(f"transform: gave a {type(image).__name__}, not a tensor; ToTensor belongs at its end")
        return image

    def __getitems__(self, places: list[Place]) -> Batch | DataError:
        """The batch of these places, or what is wrong with the data: as a value, since torch would wrap an error that
        leaves a worker into the text of its traceback."""
        try:
            return self.batch(places)
        except DataError as error:
            return error
        except OSError as error:  # a file that is not there or cannot be read is never skipped: a disk may be failing
            return DataError(f"{error.filename}: {error.strerror.lower()}" if error.strerror else str(error))

    def batch(self, places: list[Place]) -> Batch:
        """The batch of these places; an empty one, without a shape of its own, where all were skipped.

        Raises
        ------
        CorruptImage
            If a sample is damaged and ``on_corrupt`` is ``refuse``.
        ValueError
            If the images are not all of one shape.
        """
        kept, images, skipped = [], [], []
        for place in places:
            try:
                images.append(self.image(place))
                kept.append(place)
            except CorruptImage as error:
                if self.on_corrupt == "refuse":
                    raise
                skipped.append(str(error))
        if not kept:
            nothing = torch.empty(0, dtype=torch.int64)
            return Batch(torch.empty(0), nothing, nothing, None, tuple(skipped))
        return self._assembled(kept, images, tuple(skipped))

    def _assembled(self, places: list[Place], images: list[Tensor], skipped: tuple[str, ...]) -> Batch:
        for place, image in zip(places, images, strict=True):
            if image.shape != images[0].shape:
                names = [self.dataset.name(at.sample) for at in (places[0], place)]
                raise ValueError(
                    f"transform: {names[0]} became {tuple(images[0].shape)} but {names[1]} {tuple(image.shape)}"
                )
        stacked = torch.stack(images)
        indices = torch.tensor([place.sample for place in places])
        labels = torch.from_numpy(self.dataset.labels[indices.numpy()])
        shares = None
        if self.mix is not None:
            positions = [place.position for place in places]
            classes = len(self.dataset.classes)
            shares = mix_pairs(self.mix, stacked, labels, classes, positions, self.seed, places[0].epoch)
        return Batch(stacked, labels, indices, shares, skipped)
