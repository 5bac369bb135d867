"""Trains a classifier of digits: AdamW under a one-cycle schedule, label smoothing, a moving average of the weights.

What is evaluated, and kept at the best validation epoch, is the moving average: it is worth about a third of the
errors on data this small, and costs one pass over 61,706 numbers per step.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as torch_functional

from .. import registry, settings
from ..models.lenet import LeNet5
from .data import Augmentation, Digits, Split, augmented, load_digits, split_digits, upsampled


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run; chosen on validation sets, none on a test set."""

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    average: float = 0.99  # decay per step of the moving average of the weights, less in the first hundred steps
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class Epoch:
    """What one epoch measured; loss in nats per image."""

    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float


@dataclass(frozen=True)
class Trained:
    """The averaged network of the best validation epoch (counted from 0), and all epochs."""

    model: LeNet5
    best_epoch: int
    epochs: list[Epoch]

    @property
    def best(self) -> Epoch:
        return self.epochs[self.best_epoch]


Report = Callable[[int, Epoch], None]


def _silent(number: int, epoch: Epoch) -> None:
    pass


@dataclass(frozen=True)
class Outcome:
    """All that one seed gives. ``test_logits`` (N, 10) come from the only look at the test digits."""

    split: Split
    trained: Trained
    test_logits: Tensor
    seconds: float  # of training and validation

    @property
    def test_accuracy(self) -> float:
        return (self.test_logits.argmax(1) == self.split.test.labels).double().mean().item()


def learn_digits(recipe: Recipe, seed: int, report: Report = _silent) -> Outcome:
    """Split, initialise and train LeNet-5 from one seed on pycv's CPU kernels alone, then read the test digits once.

    Those are the C++ kernels, or where they are not built Numba's; without either everything runs on torch.

    On one thread: the layers of LeNet-5 take microseconds, which a second thread hardly shortens, and waiting for it on
    a busy machine would take most of the time; and the outcome does not depend on how many cores there are.

    Raises
    ------
    pycv.UnsupportedError
        If a layer has no kernel of pycv's.
    """
    split = split_digits(load_digits(), seed)
    with torch.random.fork_rng(devices=[]), _one_thread(), settings.use(backend=registry.own_backend()):
        torch.manual_seed(seed)
        model = LeNet5()
        start = time.perf_counter()
        trained = train(model, split, recipe, seed, report)
        seconds = time.perf_counter() - start
        return Outcome(split, trained, logits_of(trained.model, split.test), seconds)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def logits_of(model: nn.Module, digits: Digits) -> Tensor:
    """The network's logits (N, 10) for plainly upsampled digits."""
    model.eval()
    return torch.cat([model(upsampled(images)) for images in digits.images.split(256)])


def evaluate(model: nn.Module, digits: Digits) -> tuple[float, float]:
    """Cross-entropy in nats per image, and accuracy from 0 to 1."""
    logits = logits_of(model, digits)
    loss = torch_functional.cross_entropy(logits, digits.labels).item()
    return loss, (logits.argmax(1) == digits.labels).double().mean().item()


def one_cycle(step: int, steps: int, warm_up: float = 0.15) -> float:
    """The share of the full learning rate at a step: a straight rise, then a cosine down to nothing."""
    rise = max(1, int(steps * warm_up))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def train(
    model: LeNet5,
    split: Split,
    recipe: Recipe,
    seed: int,
    report: Report = _silent,
) -> Trained:
    """Trains ``model`` in place on ``split.train``; ``split.test`` is never looked at.

    Parameters
    ----------
    model : LeNet5
        Newly initialised.
    seed : int
        Decides the order of the images and their augmentation; initialisation is the caller's.
    report : callable
        Called after each epoch with its number (from 0) and what it measured.
    """
    random = torch.Generator().manual_seed(seed)
    averaged = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps_per_epoch = math.ceil(len(split.train) / recipe.batch_size)
    steps = recipe.epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, steps))
    epochs: list[Epoch] = []
    best, best_model = (-1.0, -math.inf), averaged
    for number in range(recipe.epochs):
        loss, accuracy = _train_epoch(model, averaged, split.train, recipe, optimizer, schedule, random)
        validation_loss, validation_accuracy = evaluate(averaged, split.validation)
        rate = optimizer.param_groups[0]["lr"]
        epochs.append(Epoch(loss, accuracy, validation_loss, validation_accuracy, rate))
        if (validation_accuracy, -validation_loss) > best:
            best, best_epoch, best_model = (validation_accuracy, -validation_loss), number, copy.deepcopy(averaged)
        report(number, epochs[-1])
    return Trained(best_model, best_epoch, epochs)


def _train_epoch(model, averaged, digits: Digits, recipe: Recipe, optimizer, schedule, random) -> tuple[float, float]:
    """One pass over the digits in random order; the mean loss and accuracy on the bent images."""
    model.train()
    total_loss, correct = 0.0, 0
    images = augmented(digits.images, recipe.augmentation, random)
    for chosen in torch.randperm(len(digits), generator=random).split(recipe.batch_size):
        logits, labels = model(images[chosen]), digits.labels[chosen]
        loss = torch_functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        step = schedule.last_epoch
        _follow(averaged, model, min(recipe.average, (1 + step) / (10 + step)))
        total_loss += loss.item() * len(chosen)
        correct += int((logits.argmax(1) == labels).sum())
    return total_loss / len(digits), correct / len(digits)


@torch.no_grad()
def _follow(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    for mean, weight in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
