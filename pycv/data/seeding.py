"""Random numbers that depend on what they are for and on nothing else.

Whatever is drawn in the pipeline comes from a generator of its own, made from (purpose, seed, place): a sample's
augmentation from (SAMPLE, seed, epoch, index), say. So it does not matter which process, worker or order computes it.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

LARGEST_SEED = 2**32 - 1


class Purpose(IntEnum):
    """What random numbers are for. Two purposes never share a stream."""

    ORDER = 0  # of an epoch's samples; the place is (epoch,)
    SAMPLE = 1  # augmentation of one sample; (epoch, index)
    MIX = 2  # mixing of two samples; (epoch, pair)
    SPLIT = 3  # into training, validation, test and folds; (class,)
    SYNTHETIC = 4  # a generated image; (split, index)


def generator(purpose: Purpose, seed: int, *place: int) -> np.random.Generator:
    """The generator of one purpose at one place, whatever was drawn before. About 20 µs.

    ``seed`` and every number of ``place`` are at least 0 and below 2**32: each is then one word of the entropy, and no
    two places have the same.
    """
    words = np.random.SeedSequence((seed, *place), spawn_key=(int(purpose),))
    return np.random.Generator(np.random.PCG64(words))


def check_seed(seed: int) -> int:
    """The seed itself.

    Raises
    ------
    ValueError
        If it is no whole number from 0 to 2**32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed={seed!r}: expected a whole number from 0 to {LARGEST_SEED}")
    return int(seed)
