"""Accuracy of a classifier, counted in integers: the same sums on one process as on many, whatever their shares.

A dozen lines in place of torchmetrics, which was tried and does not fit: it refuses the top 5 of four classes, gives an
empty class accuracy 0, and counts a NaN among the scores as a sure prediction.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

TOP = 5


class ClassificationMetrics:
    """Counts what was predicted for which class; ``update`` per batch, ``reduce`` once, then ``compute``.

    Costs one pass over the scores for the prediction and two for the rank of the target, and ``classes²`` integers of
    memory. Nothing is rounded before ``compute``, so that the order of the batches and how processes share them change
    nothing.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        if classes < 1:
            raise ValueError(f"classes={classes}: expected at least 1")
        self.classes = classes
        self._confusion = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        self._in_top = torch.zeros((), dtype=torch.int64, device=device)
        self._reduced = False

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Counts one batch, of any size.

        Parameters
        ----------
        scores : (N, classes), floating point: logits or probabilities. Of equal scores the first class ranks higher.
        targets : (N,), integers: the true classes.

        Raises
        ------
        ValueError
            If shapes do not fit, a target is out of range, or a score is NaN.
        RuntimeError
            After :meth:`reduce`: the counts are those of all processes by then.
        """
        if self._reduced:
            raise RuntimeError("update after reduce: start new metrics for the next evaluation")
        scores, targets = scores.detach().to(self._confusion.device), targets.to(self._confusion.device)
        self._check(scores, targets)
        predictions = scores.argmax(1)
        cells = torch.bincount(targets * self.classes + predictions, minlength=self.classes**2)
        self._confusion += cells.view(self.classes, self.classes)
        self._in_top += (_rank(scores, targets) < TOP).sum()

    def _check(self, scores: Tensor, targets: Tensor) -> None:
        if scores.dim() != 2 or scores.shape[1] != self.classes or targets.shape != scores.shape[:1]:
            raise ValueError(
                f"scores {tuple(scores.shape)}, targets {tuple(targets.shape)}: expected (N, {self.classes}) and (N,)"
            )
        if targets.is_floating_point():
            raise ValueError(f"targets are {targets.dtype}: expected the numbers of classes")
        wrong = (targets < 0) | (targets >= self.classes)
        if wrong.any():
            first = int(wrong.nonzero()[0])
            raise ValueError(f"targets[{first}]={int(targets[first])}: out of range for {self.classes} classes")
        if scores.isnan().any():
            raise ValueError(f"scores: NaN for {int(scores.isnan().any(1).sum())} of {len(scores)} samples")

    def reduce(self) -> None:
        """Sums the counts over all processes of ``torch.distributed``, if it is initialised; every process calls it.

        Raises
        ------
        RuntimeError
            If it was called before: the sums would be added up again.
        """
        if self._reduced:
            raise RuntimeError("reduce was called before")
        self._reduced = True
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self._confusion)
            distributed.all_reduce(self._in_top)

    def compute(self) -> dict[str, Any]:
        """The accuracies of what was counted so far.

        Returns
        -------
        dict
            ``top1`` and ``top5``: fractions, nan before the first sample; of five classes or fewer ``top5`` is 1.
            ``per_class``: float64 (classes,), the share of each class that was recognised, nan for an empty class.
            ``confusion``: int64 (classes, classes), how many of each class (row) were taken for which (column).
        """
        confusion = self._confusion.to("cpu", torch.float64)  # exact below 2^53
        of_class, right = confusion.sum(1), confusion.diagonal()
        total = of_class.sum()
        return {
            "top1": float(right.sum() / total),
            "top5": float(self._in_top.cpu() / total),
            "per_class": (right / of_class).numpy(),
            "confusion": self._confusion.cpu().numpy().copy(),
        }


def _rank(scores: Tensor, targets: Tensor) -> Tensor:
    """How many classes come before the target's in descending order of scores, the first of equals before the next."""
    own = scores.gather(1, targets[:, None])
    earlier = torch.arange(scores.shape[1], device=scores.device) < targets[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(1)
