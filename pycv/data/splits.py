"""Parts of a dataset by seed: training, validation and test, or k folds. Stratified: each has every class in the same
share, to a sample or nearly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .dataset import ImageDataset, Subset
from .errors import DataError
from .seeding import Purpose, check_seed, generator


class Split(NamedTuple):
    """No sample is in two parts. Validation decides; test is looked at once, at the end."""

    train: ImageDataset
    validation: ImageDataset
    test: ImageDataset


class Fold(NamedTuple):
    """One of k: tested on its own samples, trained on all others."""

    train: ImageDataset
    test: ImageDataset


def split(dataset: ImageDataset, seed: int, validation: float = 0.15, test: float = 0.15) -> Split:
    """Training, validation and test, of which the last two have this share of every class.

    Raises
    ------
    ValueError
        If the shares are not between 0 and 1 or leave nothing for training.
    DataError
        If a class has too few samples to be in every part that has a share.
    """
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ValueError(f"validation={validation!r}, test={test!r}: expected shares from 0, below 1 together")
    parts = stratified(dataset.labels, (1 - validation - test, validation, test), seed)
    for name, share, part in zip(Split._fields, (1, validation, test), parts, strict=True):
        if share:
            _check_classes(dataset, part, name)
    return Split(*(Subset(dataset, part) for part in parts))


def folds(dataset: ImageDataset, count: int, seed: int) -> list[Fold]:
    """``count`` folds; their test parts together are the dataset, each sample once.

    Raises
    ------
    ValueError
        If ``count`` is below 2.
    DataError
        If a class has fewer samples than there are folds.
    """
    if count < 2:
        raise ValueError(f"count={count!r}: expected 2 or more folds")
    parts = dealt(dataset.labels, count, seed)
    for number, part in enumerate(parts):
        _check_classes(dataset, part, f"fold {number}")
    return [
        Fold(Subset(dataset, np.concatenate(parts[:number] + parts[number + 1 :])), Subset(dataset, part))
        for number, part in enumerate(parts)
    ]


def stratified(labels: np.ndarray, shares: Sequence[float], seed: int) -> list[np.ndarray]:
    """Indices into ``labels`` (int64, (N,)) in parts of these shares, which sum to 1: one int64 array for each.

    Every class is cut up in a random order of its own, at the nearest whole numbers.
    """
    ends = np.cumsum(shares)[:-1]
    parts: list[list[np.ndarray]] = [[] for _ in shares]
    for members in _shuffled_classes(labels, seed):
        cuts = np.floor(len(members) * ends + 0.5).astype(np.int64)
        for part, chosen in zip(parts, np.split(members, cuts), strict=True):
            part.append(chosen)
    return [np.sort(np.concatenate(part)) for part in parts]


def dealt(labels: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Indices into ``labels`` in ``count`` equal parts, dealt out class by class, so that neither a part's size nor
    its number of any class is off by more than one."""
    deck = np.concatenate(_shuffled_classes(labels, seed))
    return [np.sort(deck[number::count]) for number in range(count)]


def _shuffled_classes(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """The indices of each class, in a random order."""
    check_seed(seed)
    return [
        generator(Purpose.SPLIT, seed, int(label)).permutation(np.flatnonzero(labels == label))
        for label in np.unique(labels)
    ]


def _check_classes(dataset: ImageDataset, part: np.ndarray, name: str) -> None:
    """Every class of the dataset has a sample in this part."""
    missing = np.setdiff1d(dataset.labels, dataset.labels[part])
    if len(missing):
        label = int(missing[0])
        count = int((dataset.labels == label).sum())
        raise DataError(
            f"class {dataset.classes[label]!r} has no sample in {name}: its {count} are too few for such a split"
        )
