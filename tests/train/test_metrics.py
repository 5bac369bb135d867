"""Accuracy: against counting by hand, with ties, empty classes and bad input; two processes with uneven shares."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

from pycv.train.metrics import ClassificationMetrics

ROOT = Path(__file__).resolve().parents[2]


def batch(samples: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores with many ties, so that their order counts."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-3, 4, (samples, classes), generator=generator).float()
    return scores, torch.randint(0, classes, (samples,), generator=generator)


def computed(classes: int, *batches: tuple[torch.Tensor, torch.Tensor]) -> dict:
    metrics = ClassificationMetrics(classes)
    for scores, targets in batches:
        metrics.update(scores, targets)
    metrics.reduce()
    return metrics.compute()


@pytest.mark.parametrize("classes", [2, 5, 6, 17])
def test_counts_as_by_hand(classes):
    scores, targets = batch(200, classes)
    order = np.argsort(-scores.numpy(), axis=1, kind="stable")  # the first of equal scores first
    place = (order == targets.numpy()[:, None]).argmax(1)
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (targets.numpy(), order[:, 0]), 1)
    found = computed(classes, (scores, targets))
    assert found["top1"] == np.mean(place == 0)
    assert found["top5"] == np.mean(place < 5)
    assert found["confusion"].dtype == np.int64 and (found["confusion"] == confusion).all()
    for label in range(classes):
        assert found["per_class"][label] == np.mean(place[targets.numpy() == label] == 0)


def test_batches_change_nothing():
    scores, targets = batch(101, 7)
    whole = computed(7, (scores, targets))
    parts = computed(7, *zip(scores.split([60, 40, 1, 0]), targets.split([60, 40, 1, 0]), strict=True))
    assert whole["top1"] == parts["top1"] and whole["top5"] == parts["top5"]
    assert (whole["confusion"] == parts["confusion"]).all()


def test_an_empty_class_has_no_accuracy():
    found = computed(3, (torch.eye(3)[[0, 2, 0]], torch.tensor([0, 2, 2])))
    assert np.isnan(found["per_class"][1])
    assert found["per_class"][[0, 2]].tolist() == [1.0, 0.5]
    nothing = computed(3)
    assert np.isnan(nothing["top1"]) and np.isnan(nothing["top5"]) and nothing["confusion"].sum() == 0


def test_half_precision_and_infinite_scores():
    scores = torch.tensor([[float("inf"), 0.0], [float("-inf"), -1.0]], dtype=torch.bfloat16, requires_grad=True)
    assert computed(2, (scores, torch.tensor([0, 1])))["top1"] == 1.0


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"targets\[1\]=3: out of range for 3 classes"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), r"targets\[0\]=-1"),
        (torch.zeros(2, 4), torch.tensor([0, 0]), r"expected \(N, 3\)"),
        (torch.zeros(2, 3), torch.tensor([0]), r"targets \(1,\)"),
        (torch.zeros(2, 3), torch.zeros(2), "torch.float32"),
        (torch.tensor([[0.0, float("nan"), 1.0]]), torch.tensor([0]), "NaN for 1 of 1"),
    ],
)
def test_bad_input_counts_nothing(scores, targets, message):
    metrics = ClassificationMetrics(3)
    with pytest.raises(ValueError, match=message):
        metrics.update(scores, targets)
    assert metrics.compute()["confusion"].sum() == 0


def test_reduced_counts_are_final():
    metrics = ClassificationMetrics(3)
    metrics.reduce()
    with pytest.raises(RuntimeError, match="after reduce"):
        metrics.update(*batch(1, 3))
    with pytest.raises(RuntimeError, match="before"):
        metrics.reduce()


def test_two_processes_with_uneven_shares(tmp_path):
    """37 samples in this process and 4 in another count as 41 in one, in both of them."""
    store = (tmp_path / "store").as_uri()
    other = subprocess.Popen([sys.executable, "-m", __name__, store], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        found = shared_count(store, 0)
        assert other.communicate(timeout=120)[0] == f"{found}\n"
    finally:
        other.kill()
    whole = computed(7, batch(41, 7))
    assert found == (whole["top1"], whole["top5"], whole["confusion"].tolist())


def shared_count(store: str, rank: int) -> tuple[float, float, list[list[int]]]:
    """What the metrics of one of two processes give, which share 41 samples unevenly."""
    distributed.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=2, timeout=datetime.timedelta(seconds=120)
    )
    try:
        scores, targets = batch(41, 7)
        share = slice(0, 37) if rank == 0 else slice(37, None)
        found = computed(7, (scores[share], targets[share]))
    finally:
        distributed.destroy_process_group()
    return found["top1"], found["top5"], found["confusion"].tolist()


if __name__ == "__main__":
    print(shared_count(sys.argv[1], 1))
