"""Batches for training and for evaluation, made by worker processes.

The two differ in what they promise. A :class:`TrainLoader` goes through shuffled epochs in whole batches, and its
position can be saved and taken up again. An :class:`EvalLoader` goes through every sample exactly once, in order, each
time it is iterated; processes share the samples without repeating any, so that counts summed over all of them are those
of one process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
import torch.utils.data

from .batch import Batch, Maker
from .dataset import ImageDataset
from .errors import DataError
from .order import Batches, Share
from .seeding import check_seed
from .transforms import Mix, Transform

T = TypeVar("T")
AHEAD = 2  # batches that each worker makes in advance


class EvalLoader:
    """Every sample once, in the dataset's order, each time it is iterated."""

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        transform: Transform,
        *,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        on_corrupt: str = "refuse",
        pin_memory: bool = False,
    ) -> None:
        """
        Parameters
        ----------
        batch_size
            Samples of a batch over all processes together; this one makes its share of each. Of the last, uneven one
            some processes may have nothing: their number of batches differs by one.
        transform
            From a picture to a tensor (C, H, W). If it is random, it draws the same every time.
        workers
            Processes that make batches; 0: this one does.
        rank, world
            Which of how many processes this is.
        on_corrupt
            ``refuse``: a damaged image raises CorruptImage. ``skip``: it is left out, and its batch, which may come to
            be empty, says so; DataError if nothing is left at all. That, too, is what a worker raises that is killed.

        Raises
        ------
        ValueError
            If a number is out of range; the message names it.
        """
        batches = Batches(
            len(dataset), _positive("batch_size", batch_size), check_seed(seed), Share(rank, world), False, False
        )
        self._batches = _torch_loader(Maker(dataset, transform, seed, on_corrupt), batches, workers, pin_memory)
        self._count = len(batches)

    def __iter__(self) -> Iterator[Batch]:
        count = 0
        skipped: list[str] = []
        for batch in _received(self._batches):
            count += len(batch.labels)
            skipped += batch.skipped
            yield batch
        if skipped and not count:
            raise DataError(f"all {len(skipped)} samples are damaged; the first: {skipped[0]}")

    def __len__(self) -> int:
        """Batches of this process."""
        return self._count


class TrainLoader:
    """Shuffled epochs in whole batches, from where it stands to the end of the epoch each time it is iterated.

    ``epoch`` and ``position`` (samples of the epoch that have been handed out, over all processes) say where it stands:
    while a batch is in hand, right after it. An iteration that is left early is taken up where it was left.

        while loader.epoch < epochs:
            for batch in loader:
                ...
                save(loader.state_dict())
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        transform: Transform,
        *,
        seed: int = 0,
        mix: Mix | None = None,
        shuffle: bool = True,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        on_corrupt: str = "refuse",
        pin_memory: bool = False,
    ) -> None:
        """
        Parameters
        ----------
        batch_size
            Samples of a batch over all processes together; a multiple of ``world``, with ``mix`` of 2 * ``world`` (a
            pair must not be parted). What is left at the end of an epoch is left out of this epoch.
        transform
            From a picture to a tensor (C, H, W). Its random numbers follow from (seed, epoch, index).
        mix
            How pairs of samples are mixed, if at all; see ``transforms.mix``.
        workers, rank, world, on_corrupt
            As for :class:`EvalLoader`. None of the first three changes what is seen at which step. Here a batch of
            which nothing is left raises DataError.

        Raises
        ------
        ValueError
            If a number is out of range, or there are fewer samples than a batch has; the message names it.
        """
        unit = world if mix is None else 2 * world
        share = Share(rank, world)
        if _positive("batch_size", batch_size) % unit:
            pairs = "" if mix is None else ", in pairs"
            raise ValueError(f"batch_size={batch_size}: expected a multiple of {unit} (world={world}{pairs})")
        if len(dataset) < batch_size:
            raise ValueError(f"batch_size={batch_size}: more than the {len(dataset)} samples of the dataset")
        self.batch_size, self.length, self.seed = batch_size, len(dataset), check_seed(seed)
        self.epoch, self.position = 0, 0
        self._sampler = Batches(self.length, batch_size, seed, share, shuffle, True)
        maker = Maker(dataset, transform, seed, on_corrupt, mix)
        self._batches = _torch_loader(maker, self._sampler, workers, pin_memory)

    def __iter__(self) -> Iterator[Batch]:
        self._sampler.epoch, self._sampler.start = self.epoch, self.position
        for batch in _received(self._batches):
            if batch.skipped and not len(batch.labels):
                raise DataError(
                    f"all {len(batch.skipped)} samples of a batch are damaged; the first: {batch.skipped[0]}"
                )
            self.position += self.batch_size
            yield batch
        self.epoch, self.position = self.epoch + 1, 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self._sampler)

    def state_dict(self) -> dict[str, int]:
        """Where it stands, in plain numbers."""
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed, "length": self.length}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes to a place that ``state_dict`` named; the number of workers and processes may be another by now.

        Raises
        ------
        ValueError
            If it is a place in another order: of another seed or number of samples.
        """
        for name in ("seed", "length"):
            if state[name] != getattr(self, name):
                raise ValueError(f"state: {name} was {state[name]}, here it is {getattr(self, name)}")
        if not (state["epoch"] >= 0 and 0 <= state["position"] <= self.length):
            raise ValueError(f"state: epoch {state['epoch']}, position {state['position']} is no place in an epoch")
        self.epoch, self.position = state["epoch"], state["position"]
        if self.length - self.position < self.batch_size:  # after the last batch of an epoch is before the next
            self.epoch, self.position = self.epoch + 1, 0


def _torch_loader(maker: Maker, batches: Batches, workers: int, pin_memory: bool) -> torch.utils.data.DataLoader[Any]:
    if workers < 0:
        raise ValueError(f"workers={workers!r}: expected 0 or more")
    return torch.utils.data.DataLoader(
        maker,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        prefetch_factor=AHEAD if workers else None,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # torch draws a seed for its workers, otherwise from the process's own stream
    )


def _as_it_is(batch: T) -> T:
    return batch


def _checked(made: Batch | DataError) -> Batch:
    """The batch; raises what a worker has found wrong with the data."""
    if isinstance(made, DataError):
        # A new one: if the frames of its traceback referred to the error itself, only the garbage collector would free
        # them and the loader with them, in an order in which torch waits five seconds for every worker.
        raise type(made)(*made.args)
    return made


def _received(batches: Iterable[Batch | DataError]) -> Iterator[Batch]:
    """The batches; DataError if a worker is gone, as where memory runs out. What goes wrong with a file comes as a
    value, so that an error of the system is one of the way from the worker."""
    try:
        yield from map(_checked, batches)
    except (OSError, EOFError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not worker_is_gone(error):
            raise
        reason = str(error).strip() or type(error).__name__
        raise DataError(f"a process that makes batches has ended: {reason}") from None


def worker_is_gone(error: RuntimeError) -> bool:
    """Whether this is what torch raises, wherever the main process may be, when the system ends a worker."""
    return str(error).startswith("DataLoader worker (pid")


def _start_worker(number: int) -> None:
    """One thread per worker, as there are many; Ctrl-C and SIGTERM, which may reach a whole group of processes, are the
    main process's to answer, and a worker that ended by itself would end that one in the middle of whatever it does."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Waits for a SIGTERM of the main process's own: so Python ends the workers that are left when it exits."""
    parent = multiprocessing.parent_process()
    while parent is not None and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r}: expected a whole number above 0")
    return value
