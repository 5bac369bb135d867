"""Which samples make up which batch on which process.

The order of an epoch follows from (seed, epoch) alone; a batch is a run of it, over all processes together; each
process takes its share of each batch, in order. So whatever the number of processes, they see together what one would,
batch by batch, and every sample exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .seeding import Purpose, generator


class Place(NamedTuple):
    """One sample of one epoch: what a worker needs to know to make it."""

    epoch: int
    position: int  # in the epoch's order
    sample: int  # its index in the dataset


def epoch_order(length: int, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """int64 (length,): the indices of a dataset in the order of this epoch."""
    if not shuffle:
        return np.arange(length)
    return generator(Purpose.ORDER, seed, epoch).permutation(length)


@dataclass(frozen=True)
class Share:
    """One process's part of everything: ``rank`` from 0 to ``world`` - 1."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.world < 1 or not 0 <= self.rank < self.world:
            raise ValueError(f"rank={self.rank!r}, world={self.world!r}: expected 0 <= rank < world")

    def of(self, count: int) -> slice:
        """This process's run of ``count`` items; the runs of all processes follow each other and leave nothing out."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)


class Batches:
    """The batches of one epoch as lists of places, from ``start`` on: a batch sampler for torch's DataLoader.

    ``epoch`` and ``start`` (a position in the epoch's order) are set before each iteration.
    """

    def __init__(self, length: int, batch_size: int, seed: int, share: Share, shuffle: bool, drop_last: bool) -> None:
        """``batch_size`` counts the samples of all processes; see the loaders for what they ask of it."""
        self.length, self.batch_size, self.seed, self.share = length, batch_size, seed, share
        self.shuffle, self.drop_last = shuffle, drop_last
        self.epoch, self.start = 0, 0

    def __iter__(self) -> Iterator[list[Place]]:
        order = epoch_order(self.length, self.seed, self.epoch, self.shuffle)
        for begin in range(self.start, self.length, self.batch_size):
            batch = range(begin, min(begin + self.batch_size, self.length))
            if len(batch) < self.batch_size and self.drop_last:
                return
            own = batch[self.share.of(len(batch))]
            if len(own):  # of a last batch smaller than the number of processes some have nothing
                yield [Place(self.epoch, position, int(order[position])) for position in own]

    def __len__(self) -> int:
        """Batches of a whole epoch that this process has a part in."""
        whole, rest = divmod(self.length, self.batch_size)
        counts = {self.batch_size: whole, rest: 0 if self.drop_last else 1}
        return sum(count for size, count in counts.items() if range(size)[self.share.of(size)])
