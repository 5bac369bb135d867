"""Loaders: neither workers nor processes change the data, a place can be taken up again, evaluation sees all once."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pycv import data
from pycv.data.order import Batches, Share, epoch_order
from pycv.data.transforms import Compose, CutMix, Mixup, OneOf, RandomCrop, RandomErasing, RandomFlip, ToTensor

from ..seed import SEED, properties
from . import layouts

LENGTH, CLASSES = 29, 3
DATASET = data.ArrayImages(layouts.pixels(LENGTH, 8, 8, 3), np.arange(LENGTH) % CLASSES, ["a", "b", "c"])
AUGMENT = Compose(RandomCrop(8, 2), RandomFlip(), ToTensor(), RandomErasing(0.5))
MIX = OneOf((Mixup(0.4), CutMix()))


def train_loader(**options) -> data.TrainLoader:
    return data.TrainLoader(DATASET, **{"batch_size": 8, "transform": AUGMENT, "seed": SEED, **options})


def batches_of(loader, epochs: int = 1) -> list[data.Batch]:
    return [batch for _ in range(epochs) for batch in loader]


def assert_same(one: list[data.Batch], other: list[data.Batch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)
        assert torch.equal(a.labels, b.labels) and torch.equal(a.indices, b.indices)


def joined(parts: list[list[data.Batch]]) -> list[data.Batch]:
    """The batches of all processes, put together step by step."""
    steps = [[batch for batch in step if batch is not None] for step in itertools.zip_longest(*parts)]
    return [
        data.Batch(
            torch.cat([batch.images for batch in step]),
            torch.cat([batch.labels for batch in step]),
            torch.cat([batch.indices for batch in step]),
            None if step[0].shares is None else torch.cat([batch.shares for batch in step]),
            (),
        )
        for step in steps
    ]


@pytest.mark.parametrize("mix", [None, MIX])
def test_number_of_processes_changes_nothing(mix):
    alone = batches_of(train_loader(mix=mix), 2)
    for world in (2, 4):
        together = joined([batches_of(train_loader(mix=mix, rank=rank, world=world), 2) for rank in range(world)])
        assert_same(alone, together)


def test_number_of_workers_changes_nothing():
    alone = batches_of(train_loader(mix=MIX), 2)
    for workers in (1, 2):
        assert_same(alone, batches_of(train_loader(mix=MIX, workers=workers), 2))


def test_batch_size_does_not_change_the_samples():
    """Augmentation belongs to the sample, mixing to the pair, whatever batch they are in."""
    eight, four = (torch.cat([b.images for b in batches_of(train_loader(mix=MIX, batch_size=size))]) for size in (8, 4))
    assert torch.equal(eight, four[:24])


def test_epochs_differ_and_seeds_differ():
    loader = train_loader()
    first, second = batches_of(loader), batches_of(loader)
    other = batches_of(train_loader(seed=(SEED + 1) % 2**32))
    for orders in ((first, second), (first, other)):
        one, two = (torch.cat([batch.indices for batch in batches]) for batches in orders)
        assert not torch.equal(one, two)
    assert loader.epoch == 2
    by_index = [dict(zip(torch.cat([b.indices for b in batches]).tolist(), torch.cat([b.images for b in batches]),
                         strict=True)) for batches in (first, second)]  # fmt: skip
    both = by_index[0].keys() & by_index[1].keys()
    assert sum(torch.equal(by_index[0][index], by_index[1][index]) for index in both) < len(both) / 2


def test_a_batch_is_what_it_says():
    plain = Compose(ToTensor())
    batch = next(iter(train_loader(transform=plain)))
    assert batch.images.dtype == torch.float32 and batch.images.shape == (8, 3, 8, 8)
    assert torch.equal(batch.targets, batch.labels) and batch.shares is None and batch.skipped == ()
    assert np.array_equal(batch.labels.numpy(), DATASET.labels[batch.indices.numpy()])
    for image, index in zip(batch.images, batch.indices, strict=True):
        assert torch.equal(image, ToTensor()(DATASET.image(int(index)), None))
    order = [int(index) for batch in batches_of(train_loader(shuffle=False)) for index in batch.indices]
    assert order == list(range(24))


@pytest.mark.parametrize("workers", [0, 2])
def test_position_can_be_taken_up(workers):
    whole = batches_of(train_loader(mix=MIX), 3)
    for step in (0, 1, 3, 5) if workers == 0 else (4,):
        loader, seen = train_loader(mix=MIX, workers=workers), []
        if step:
            for seen in itertools.accumulate(iter_epochs(loader), lambda all, batch: [*all, batch], initial=[]):
                if len(seen) == step:
                    break
        state = loader.state_dict()
        assert all(type(value) is int for value in state.values())
        del loader
        again = train_loader(mix=MIX, workers=workers)
        again.load_state_dict(state)
        rest = []
        while again.epoch < 3:
            rest += list(again)
        assert_same(whole, seen + rest)


def iter_epochs(loader):
    while True:
        yield from loader


def test_position_counts_the_samples_of_all_processes():
    loader = train_loader(rank=1, world=2)
    iterator = iter(loader)
    next(iterator)
    assert loader.state_dict() == {"epoch": 0, "position": 8, "seed": SEED, "length": LENGTH}
    alone = train_loader()
    alone.load_state_dict(loader.state_dict())
    assert torch.equal(next(iter(alone)).indices[4:], next(iterator).indices)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iteration_left_early_goes_on(workers):
    loader, whole = train_loader(workers=workers), batches_of(train_loader())
    for batch in loader:
        assert_same(whole[:1], [batch])
        break
    assert loader.position == 8
    assert_same(whole[1:], list(loader))
    assert (loader.epoch, loader.position) == (1, 0)


def test_places_of_other_orders_are_refused():
    state = train_loader().state_dict()
    for wrong, message in (
        ({"seed": (SEED + 1) % 2**32}, "state: seed was"),
        ({"length": 7}, "state: length was 7, here it is 29"),
        ({"position": 30}, "epoch 0, position 30 is no place"),
        ({"epoch": -1}, "epoch -1"),
    ):
        with pytest.raises(ValueError, match=message):
            train_loader().load_state_dict({**state, **wrong})


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_evaluation_sees_every_sample_once(world):
    parts = [
        list(data.EvalLoader(DATASET, 8, ToTensor(), rank=rank, world=world)) for rank in range(world)
    ]  # fmt: skip
    counts = [[len(batch.labels) for batch in part] for part in parts]
    assert sum(map(sum, counts)) == LENGTH and max(map(len, counts)) - min(map(len, counts)) <= 1
    seen = sorted(int(index) for part in parts for batch in part for index in batch.indices)
    assert seen == list(range(LENGTH))
    if world <= 2:
        assert_same(list(data.EvalLoader(DATASET, 8, ToTensor())), joined(parts))


def test_evaluation_begins_anew_each_time():
    loader = data.EvalLoader(DATASET, 8, AUGMENT)
    next(iter(loader))
    assert_same(list(loader), list(loader))
    assert len(loader) == len(list(loader)) == 4


@properties(200)
@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 6), st.booleans(), st.booleans(), st.integers(0, 3))
def test_shares_partition_every_batch(length, batch_size, world, shuffle, drop_last, epoch):
    parts = [Batches(length, batch_size, 5, Share(rank, world), shuffle, drop_last) for rank in range(world)]
    seen: dict[int, int] = {}
    for part in parts:
        part.epoch = epoch
        batches = list(part)
        assert len(part) == len(batches)
        for places in batches:
            assert len({place.position // batch_size for place in places}) == 1
            for place in places:
                assert place.epoch == epoch and place.position not in seen
                seen[place.position] = place.sample
    positions = range(length - length % batch_size if drop_last else length)
    assert sorted(seen) == list(positions)
    order = epoch_order(length, 5, epoch, shuffle)
    assert [seen[position] for position in positions] == order[: len(positions)].tolist()
    assert sorted(order) == list(range(length)) and (shuffle or order.tolist() == list(range(length)))


def about_the_worker(image, random):
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return torch.tensor([os.getpid(), torch.get_num_threads(), float(ignored)], dtype=torch.float64)


def test_workers_are_few_threaded_lasting_and_deaf_to_interrupts():
    loader = train_loader(transform=about_the_worker, workers=2)
    seen = [torch.cat([batch.images for batch in batches_of(loader)]) for _ in range(2)]
    pids = [set(part[:, 0].tolist()) for part in seen]
    assert pids[0] == pids[1] and len(pids[0]) == 2 and os.getpid() not in pids[0]
    assert (torch.cat(seen)[:, 1:] == 1).all()


def terminated(image, random):
    """As a signal to the whole group of processes ends it."""
    os.kill(os.getpid(), signal.SIGTERM)
    return torch.zeros(1)


def test_workers_end_by_the_main_process_only():
    before = multiprocessing.active_children()
    loader = train_loader(transform=terminated, workers=1)
    assert len(batches_of(loader)) == len(loader)
    (worker,) = set(multiprocessing.active_children()) - set(before)
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0


def killed(image, random):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_said():
    with pytest.raises(data.DataError, match=r"^a process that makes batches has ended: .*worker"):
        batches_of(train_loader(transform=killed, workers=1))


def test_the_process_keeps_its_own_random_numbers():
    """A resumed run must see the dropout masks that it would have seen."""
    torch.manual_seed(3)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]
    batches_of(train_loader(mix=MIX, workers=1))
    batches_of(train_loader(mix=MIX))
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(np.random.get_state()[1], numpy_state)


def test_bad_arguments_are_named():
    for options, message in (
        ({"batch_size": 0}, "batch_size=0: expected a whole number"),
        ({"batch_size": 2.0}, r"batch_size=2\.0"),
        ({"batch_size": 30}, "batch_size=30: more than the 29 samples"),
        ({"batch_size": 9, "world": 2}, r"batch_size=9: expected a multiple of 2 \(world=2\)"),
        ({"batch_size": 6, "world": 2, "mix": MIX}, r"batch_size=6: expected a multiple of 4 \(world=2, in pairs\)"),
        ({"rank": 2, "world": 2}, "rank=2, world=2"),
        ({"workers": -1}, "workers=-1"),
        ({"seed": -1}, "seed=-1"),
    ):
        with pytest.raises(ValueError, match=message):
            train_loader(**options)


def test_what_a_transform_must_give():
    with pytest.raises(TypeError, match="transform: gave a Image, not a tensor"):
        next(iter(train_loader(transform=RandomFlip())))

    def uneven(image, random):
        return torch.zeros(3, int(random.integers(2, 90)), 2)

    with pytest.raises(ValueError, match=r"array\[\d+\] became \(3, \d+, 2\) but array\[\d+\] \(3, \d+, 2\)"):
        next(iter(train_loader(transform=uneven)))
