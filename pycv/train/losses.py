"""Losses: what training makes small, and how evaluation reads the same outputs.

Targets are class indices, int64 (N,), or the shares of all classes, float (N, classes), of mixed pictures. Training
takes the mean over the batch; evaluation sums :meth:`Loss.each` over all samples, so that no batch size shows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from . import recipe


class Loss(ABC):
    """Of a network's outputs (a tensor of scores (N, classes), or whatever :meth:`scores` finds them in)."""

    @abstractmethod
    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        """The mean over the batch, a scalar with a gradient."""

    @abstractmethod
    def each(self, scores: Tensor, labels: Tensor) -> Tensor:
        """(N,): every sample's loss, without smoothing."""

    @abstractmethod
    def combined(self, scores: Sequence[Tensor]) -> Tensor:
        """One (N, classes) of several: of the networks of an ensemble, of several crops."""

    @abstractmethod
    def probabilities(self, scores: Tensor) -> Tensor:
        """(N, classes): what the scores say about every class."""

    def scores(self, outputs: Any) -> Tensor:
        """The scores among the outputs: of a tuple the first, auxiliary heads follow."""
        return outputs if isinstance(outputs, Tensor) else outputs[0]


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """-Σ t log softmax(scores), with t = (1 - s) target + s / classes.

    Source of the smoothing s: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, section 7.
    """

    label_smoothing: float = 0.0

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        return functional.cross_entropy(self.scores(outputs), targets, label_smoothing=self.label_smoothing)

    def each(self, scores: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(scores, labels, reduction="none")

    def combined(self, scores: Sequence[Tensor]) -> Tensor:
        """The logarithm of the mean probability."""
        return torch.stack([each.log_softmax(1) for each in scores]).logsumexp(0) - math.log(len(scores))

    def probabilities(self, scores: Tensor) -> Tensor:
        return scores.softmax(1)


@dataclass(frozen=True)
class SquaredError(Loss):
    """Σ (scores - t)² over the classes, t = 1 for the class and 0 for the others: LeCun et al., 1998, equation (8)
    takes the class's term alone of outputs that are distances; here all outputs are drawn to their targets."""

    label_smoothing: float = 0.0

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        scores = self.scores(outputs)
        if targets.dim() == 1:
            targets = functional.one_hot(targets, scores.shape[1])
        smoothed = targets * (1 - self.label_smoothing) + self.label_smoothing / scores.shape[1]
        return (scores - smoothed).square().sum(1).mean()

    def each(self, scores: Tensor, labels: Tensor) -> Tensor:
        return (scores - functional.one_hot(labels, scores.shape[1])).square().sum(1)

    def combined(self, scores: Sequence[Tensor]) -> Tensor:
        """The mean."""
        return torch.stack(list(scores)).mean(0)

    def probabilities(self, scores: Tensor) -> Tensor:
        """What regression to 0 and 1 estimates, cut off outside of that."""
        return scores.clamp(0, 1)


@dataclass(frozen=True)
class WithAuxiliary(Loss):
    """A loss of the network's scores, and ``weight`` times that of each auxiliary head's.

    Outputs are a tuple in training, the network's own scores first. Source: Szegedy et al., "Going Deeper with
    Convolutions", CVPR 2015, section 5 (weight 0.3).
    """

    loss: Loss
    weight: float = 0.3

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        if isinstance(outputs, Tensor):
            return self.loss(outputs, targets)
        main, *auxiliary = outputs
        return self.loss(main, targets) + self.weight * sum(self.loss(scores, targets) for scores in auxiliary)

    def each(self, scores: Tensor, labels: Tensor) -> Tensor:
        return self.loss.each(scores, labels)

    def combined(self, scores: Sequence[Tensor]) -> Tensor:
        return self.loss.combined(scores)

    def probabilities(self, scores: Tensor) -> Tensor:
        return self.loss.probabilities(scores)


@dataclass(frozen=True)
class Task:
    """One head of several: its loss, its weight in the sum, and its own class for every class of the data.

    ``of_class`` is None where the head tells the classes of the data themselves apart; else int64 (classes,), as the
    coarse class of every fine one.
    """

    loss: Loss
    weight: float = 1.0
    of_class: Tensor | None = None

    def targets(self, targets: Tensor) -> Tensor:
        """What this head compares with."""
        if self.of_class is None:
            return targets
        table = self.of_class.to(targets.device)
        if targets.dim() == 1:
            return table[targets]
        return targets @ functional.one_hot(table).to(targets.dtype)


class MultiTask(Loss):
    """The weighted sum of several heads' losses. The network gives a mapping from their names to their scores; the
    first task tells the classes of the data apart and is the one that is evaluated.

        MultiTask({"digit": Task(CrossEntropy()), "parity": Task(CrossEntropy(), 0.5, torch.arange(10) % 2)})
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        if not tasks:
            raise ValueError("tasks={}: expected one at least")
        self.tasks = dict(tasks)
        self.main = next(iter(self.tasks))
        if self.tasks[self.main].of_class is not None:
            raise ValueError(f"tasks: the first, {self.main!r}, is to tell the classes of the data themselves apart")

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        if missing := [name for name in self.tasks if name not in outputs]:
            raise ValueError(f"tasks: the network gives no {missing[0]!r}, only {', '.join(map(repr, outputs))}")
        terms = [task.weight * task.loss(outputs[name], task.targets(targets)) for name, task in self.tasks.items()]
        return torch.stack(terms).sum()

    def scores(self, outputs: Any) -> Tensor:
        return outputs[self.main]

    def each(self, scores: Tensor, labels: Tensor) -> Tensor:
        return self.tasks[self.main].loss.each(scores, labels)

    def combined(self, scores: Sequence[Tensor]) -> Tensor:
        return self.tasks[self.main].loss.combined(scores)

    def probabilities(self, scores: Tensor) -> Tensor:
        return self.tasks[self.main].loss.probabilities(scores)


LOSSES = {"cross_entropy": CrossEntropy, "squared_error": SquaredError}


def build(wanted: recipe.Loss) -> Loss:
    """The loss that a recipe names."""
    return WithAuxiliary(LOSSES[wanted.name](wanted.label_smoothing), wanted.auxiliary)
