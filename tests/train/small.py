"""A run of seconds: 48 pictures of 8×8, a network with everything that has a state (dropout, batch normalisation)."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pycv import nn as pycv_nn
from pycv.data import ArrayImages, CorruptImage
from pycv.train import Outcome, Parts, Recipe, checkpoints, recipe, train

CLASSES = ("left", "right", "above", "below")
LINES = """
epochs = 3
batch_size = 8
[augment]
preset = "cifar"
normalise = "digits"
size = 8
[loss]
label_smoothing = 0.1
[optim]
lr = 0.05
weight_decay = 1e-3
[schedule]
name = "cosine"
warm_up = 1
[loop]
device = "cpu"
threads = 1
ema = 0.9
log_every = 4
checkpoint_every = 5
evaluation_batch = 5
"""


def small(*assignments: str) -> Recipe:
    return recipe.override(recipe.parse(LINES), assignments)


def pictures(count: int, seed: int) -> ArrayImages:
    """Half of each is bright: the half that its class names."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    images = random.integers(0, 200, (count, 8, 8), dtype=np.uint8)
    halves = (np.s_[:, :4], np.s_[:, 4:], np.s_[:4], np.s_[4:])
    for image, label in zip(images, labels, strict=True):
        image[halves[label]] += 55
    return ArrayImages(images, labels, CLASSES, "made")


def damaged(data: ArrayImages, *indices: int) -> ArrayImages:
    """The same pictures, of which some cannot be decoded."""

    class Damaged(ArrayImages):
        def image(self, index):
            if index in indices:
                raise CorruptImage(f"{self.name(index)}: truncated")
            return super().image(index)

    return Damaged(data.images, data.labels, data.classes, "made")


PARTS = Parts(pictures(48, 1), pictures(17, 2), pictures(18, 3))


def network(dropout: float = 0.2, norm: bool = True, outputs: int = len(CLASSES)) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        pycv_nn.Conv2d(1, 4, 3, padding=1),
        pycv_nn.BatchNorm2d(4) if norm else nn.Identity(),
        pycv_nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        pycv_nn.Linear(4 * 64, outputs),
    )


def run(path: Path, *assignments: str, **options: Any) -> Outcome:
    options = {"model": network(), "data": PARTS, "say": lambda line: None, **options}
    return train(small(*assignments), path, **options)


def records(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, less what the clock says."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


def newest(path: Path) -> dict[str, Any]:
    found = checkpoints.Checkpoints(path / "checkpoints", 2).newest(print)
    assert found is not None
    return found


def assert_same_run(one: Path, other: Path) -> None:
    """To the bit: weights, moving average, optimizer, random numbers; and every line of metrics.jsonl."""
    ours, theirs = newest(one), newest(other)
    for state in (ours, theirs):
        del state["progress"]["seconds"], state["progress"]["window_seconds"], state["recipe"]
    assert_same(ours, theirs, "")
    assert_same(checkpoints.read(one / "checkpoints/best.pt")["model"], best(other), "best")
    assert records(one) == records(other)
    with np.load(one / "evaluation.npz") as a, np.load(other / "evaluation.npz") as b:
        assert all(np.array_equal(a[name], b[name]) for name in ("index", "target", "prediction", "probability"))


def best(path: Path) -> dict[str, Any]:
    return checkpoints.read(path / "checkpoints/best.pt")["model"]


def assert_same(one: Any, other: Any, key: str) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), key
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), key
        for name in one:
            assert_same(one[name], other[name], f"{key}.{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), key
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{key}.{number}")
    else:
        assert one == other, key


def forked(function: Callable[[], Any]) -> int:
    """Runs a function in a child process, which has torch imported already; returns its number."""
    child = os.fork()
    if child:
        return child
    try:
        function()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


class Watch:
    """An observer that does something when a record comes."""

    def __init__(self, do: Callable[[dict[str, Any]], None]) -> None:
        self.do, self.calls = do, []

    def start(self, total_steps: int, done_steps: int) -> None:
        self.calls.append((total_steps, done_steps))

    def record(self, record: dict[str, Any]) -> None:
        self.do(record)

    def close(self) -> None:
        self.calls.append("closed")
