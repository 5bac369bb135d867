"""Evaluation: every sample once, whatever the batch size and number of processes; of one network or an ensemble.

The loss is summed in float64 and counts in integers; over several processes the sums are added and what each predicted
is put into the order of the dataset.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import EvalLoader
from .distributed import Group
from .errors import Diverged
from .files import write_whole
from .losses import Loss
from .metrics import ClassificationMetrics
from .placement import Placement


@dataclass(frozen=True)
class Evaluation:
    """What networks made of a part of the data.

    ``index``, ``target`` and ``prediction``, int64 (N,), and ``probability`` of the prediction, float32 (N,), are in
    the order of the dataset; ``per_class`` (classes,) and ``confusion`` (classes, classes) as ClassificationMetrics.
    """

    loss: float
    top1: float
    top5: float
    per_class: np.ndarray
    confusion: np.ndarray
    seconds: float
    index: np.ndarray
    target: np.ndarray
    prediction: np.ndarray
    probability: np.ndarray

    @property
    def images_per_second(self) -> float:
        return len(self.index) / self.seconds

    def record(self) -> dict[str, float]:
        """Its part of a line of metrics.jsonl."""
        return {
            "loss": self.loss,
            "top1": self.top1,
            "top5": self.top5,
            "images_per_second": self.images_per_second,
        }

    def save(self, path: Path) -> None:
        """Writes ``index``, ``target``, ``prediction`` and ``probability`` as one ``.npz``, whole or not at all."""
        memory = io.BytesIO()
        np.savez(memory, index=self.index, target=self.target, prediction=self.prediction, probability=self.probability)
        write_whole(path, memory.getvalue())


@torch.no_grad()
def scores_of(networks: Sequence[nn.Module], images: Tensor, loss: Loss, placement: Placement) -> Tensor:
    """The scores (N, classes), float32, of several networks together.

    Images are (N, C, H, W), or (N, crops, C, H, W): then each network is asked about every crop.

    Raises
    ------
    Diverged
        If they are not finite.
    """
    crops = images.shape[1] if images.dim() == 5 else 1
    flat = placement.images(images.flatten(0, 1) if images.dim() == 5 else images)
    found = []
    for network in networks:
        with placement.autocast():
            scores = loss.scores(network(flat)).float()
        found += list(scores.unflatten(0, (-1, crops)).unbind(1))
    scores = found[0] if len(found) == 1 else loss.combined(found)
    if not scores.isfinite().all():
        raise Diverged("the network's scores are not finite")
    return scores


@torch.no_grad()
def evaluate(
    networks: Sequence[nn.Module],
    loader: EvalLoader,
    loss: Loss,
    classes: int,
    placement: Placement,
    group: Group,
    between: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = print,
) -> Evaluation:
    """The evaluation of networks (together, as an ensemble) on what the loader gives; every process calls it.

    ``between`` is called after each batch, in every process equally often; what it raises ends the evaluation. ``say``
    hears of every picture that was skipped, in whichever process.

    Raises
    ------
    Diverged
        If scores are not finite.
    """
    for network in networks:
        network.eval()
        group.share_buffers(network)
    start = time.perf_counter()
    metrics = ClassificationMetrics(classes, placement.device)
    total, columns = torch.zeros((), dtype=torch.float64, device=placement.device), []
    skipped: list[str] = []
    common = min(group.gather(len(loader)))  # of the last batch some processes have nothing
    for number, batch in enumerate(loader):
        skipped += batch.skipped
        if len(batch.labels):
            labels = placement.targets(batch.labels)
            scores = scores_of(networks, batch.images, loss, placement)
            metrics.update(scores, labels)
            total += loss.each(scores, labels).double().sum()
            prediction = scores.argmax(1)  # as the metrics: probabilities may tie where scores do not
            probability = loss.probabilities(scores).gather(1, prediction[:, None])[:, 0]
            columns.append((batch.indices, batch.labels, prediction.cpu(), probability.cpu()))
        if number < common:
            between()
    for reason in chain.from_iterable(group.gather(skipped)):
        say(f"skipped: {reason}")
    metrics.reduce()
    index, target, predicted, surely = _in_order(columns, group)
    (summed,) = group.sum([total.item()])
    counted: dict[str, Any] = metrics.compute()
    seconds = time.perf_counter() - start
    return Evaluation(
        summed / max(1, len(index)), **counted, seconds=seconds,
        index=index, target=target, prediction=predicted, probability=surely.astype(np.float32),
    )  # fmt: skip


def _in_order(columns: Sequence[tuple[Tensor, ...]], group: Group) -> list[np.ndarray]:
    """The columns of all batches of all processes as arrays, by the samples' indices."""
    gathered = [row for part in group.gather(columns) for row in part]
    if not gathered:
        return [np.zeros(0, np.int64)] * 3 + [np.zeros(0, np.float32)]
    arrays = [torch.cat(column).numpy() for column in zip(*gathered, strict=True)]
    order = np.argsort(arrays[0], kind="stable")
    return [array[order] for array in arrays]
