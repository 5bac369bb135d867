"""Splits and folds: disjoint, complete, stratified, fixed by their seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pycv import data
from pycv.data.seeding import Purpose, check_seed, generator
from pycv.data.splits import dealt, stratified

from ..seed import SEED


@pytest.fixture(scope="module")
def digits():
    return data.create("digits")


def test_split(digits):
    split, again, other = (data.split(digits, seed) for seed in (3, 3, 4))
    assert np.array_equal(np.sort(np.concatenate([part.indices for part in split])), np.arange(1797))
    share = np.bincount(digits.labels) / 1797
    for part, expected in zip(split, (0.7, 0.15, 0.15), strict=True):
        assert abs(len(part) - 1797 * expected) < 6
        assert (np.abs(np.bincount(part.labels) - share * 1797 * expected) < 1).all()
        assert np.array_equal(part.labels, digits.labels[part.indices]) and part.classes == digits.classes
        assert np.array_equal(np.asarray(part[5][0]), np.asarray(digits[part.indices[5]][0]))
        assert part.name(5) == digits.name(part.indices[5])
    assert np.array_equal(split.test.indices, again.test.indices)
    assert not np.array_equal(split.test.indices, other.test.indices)


def test_parts_may_be_left_out(digits):
    train, validation, test = data.split(digits, 0, validation=0.2, test=0)
    assert len(test) == 0 and len(train) + len(validation) == 1797


def test_folds(digits):
    folds = data.folds(digits, 5, 1)
    assert np.array_equal(np.sort(np.concatenate([fold.test.indices for fold in folds])), np.arange(1797))
    assert sorted({len(fold.test) for fold in folds}) == [359, 360]
    counts = np.array([np.bincount(fold.test.labels) for fold in folds])
    assert (np.ptp(counts, 0) <= 1).all()
    for fold in folds:
        assert np.array_equal(np.sort(np.concatenate([fold.train.indices, fold.test.indices])), np.arange(1797))
    assert not np.array_equal(folds[0].test.indices, data.folds(digits, 5, 2)[0].test.indices)


def test_any_shares_and_class_sizes():
    random = np.random.default_rng(SEED)
    for _ in range(50):
        labels = random.integers(0, random.integers(1, 9), random.integers(1, 60))
        shares = random.dirichlet(np.ones(random.integers(1, 5)))
        seed = int(random.integers(2**32))
        for parts in (stratified(labels, shares, seed), dealt(labels, len(shares), seed)):
            assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))


def test_classes_too_small_to_split(digits):
    few = data.Subset(digits, [*range(200), *np.flatnonzero(digits.labels == 7)[:3]])
    rare = data.Subset(few, np.flatnonzero((few.labels != 7) | (np.arange(len(few)) >= 200)))
    with pytest.raises(data.DataError, match="class '7' has no sample in test: its 3 are too few"):
        data.split(rare, 0)
    with pytest.raises(data.DataError, match="class '7' has no sample in fold"):
        data.folds(rare, 5, 0)


def test_bad_arguments(digits):
    for shares in ((0.5, 0.5), (-0.1, 0.2), (1.0, 0.0)):
        with pytest.raises(ValueError, match=f"validation={shares[0]}, test={shares[1]}"):
            data.split(digits, 0, *shares)
    with pytest.raises(ValueError, match="count=1"):
        data.folds(digits, 1, 0)
    for seed in (-1, 2**32, 0.5, True, "1"):
        with pytest.raises(ValueError, match=f"seed={seed!r}"):
            data.split(digits, seed)
    assert check_seed(np.int64(5)) == 5


def test_no_two_places_share_random_numbers():
    places = list(itertools.product(Purpose, (0, 1), (0, 1), (0, 1)))
    drawn = {generator(*place).integers(2**63) for place in places}
    assert len(drawn) == len(places)
    assert generator(*places[5]).integers(2**63) in drawn
