"""A training step of each recipe's network, on pycv's layers and on torch's.

    python -m benchmarks.training_steps [--recipe alexnet] [--batch 16] [--seconds 60] [--json FILE]

A step is forward, loss, backward and the recipe's optimizer on pictures that are in memory: the input pipeline is
measured by benchmarks/input_pipeline.py. The contenders have equal weights and take turns in one process: ``pycv``
chooses its kernels as always, ``torch:nchw`` is the network on torch.nn's layers, ``torch:nhwc`` the same with
channels_last. ImageNet's networks see ``--batch`` pictures, the others as many as their recipes say.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pycv import models, train
from pycv.bench import machine
from pycv.nn.patch import TWINS
from pycv.timing import measure
from pycv.train import losses, optimizers

PLAIN = {layer: plain for plain, layer in TWINS.items()}


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.training_steps", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--recipe", choices=train.recipe.names(), action="append", help="default: all")
    parser.add_argument("--batch", type=int, default=16, help="pictures of ImageNet per step (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for everything, roughly (%(default)s)")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    names = arguments.recipe or train.recipe.names()
    print(f"{'recipe':<20}{'batch':>6}{'pycv ms':>10}{'torch:nchw ms':>15}{'torch:nhwc ms':>15}{'pycv vs best':>14}")
    rows = []
    for name in names:
        rows.append(compared(train.recipe.load(name), arguments.batch, arguments.seconds / len(names)))
        print(line(rows[-1]), flush=True)
    if arguments.json:
        document = {
            "rows": rows,
            "machine": machine.describe(),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def compared(recipe: train.Recipe, batch: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of a step of each contender."""
    torch.manual_seed(0)
    network = models.create(recipe.model.name, **recipe.model.arguments).train()
    count = min(batch, recipe.batch_size) if recipe.data.name == "imagenet" else recipe.batch_size
    channels = recipe.model.arguments.get("in_channels", models.image_shape(recipe.model.name)[0])
    images = torch.randn(count, channels, recipe.augment.size, recipe.augment.size)
    labels = torch.arange(count) % 10
    contenders = {
        "pycv": step(recipe, copy.deepcopy(network), images, labels),
        "torch:nchw": step(recipe, on_torch(copy.deepcopy(network)), images, labels),
        "torch:nhwc": step(
            recipe,
            on_torch(network).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            images.to(memory_format=torch.channels_last),
            labels,
        ),
    }
    timings = measure(contenders, seconds)
    found = {name: {"ms": 1e3 * timing.seconds, "noisy": timing.noisy} for name, timing in timings.items()}
    return {"recipe": recipe.name, "model": recipe.model.name, "batch": count, "contenders": found}


def on_torch(network: nn.Module) -> nn.Module:
    """The network itself, on torch.nn's layers."""
    for module in network.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    return network


def step(recipe: train.Recipe, network: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """One step of training."""
    loss, optimizer = losses.build(recipe.loss), optimizers.build(recipe.optim, network)
    optimizers.set_rate(optimizer, 1e-6)  # the weights hardly change, however long it is measured

    def call() -> None:
        loss(network(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return call


def line(row: dict[str, Any]) -> str:
    times = {name: timing["ms"] for name, timing in row["contenders"].items()}
    best = min(times["torch:nchw"], times["torch:nhwc"])
    figures = f"{times['pycv']:>10.2f}{times['torch:nchw']:>15.2f}{times['torch:nhwc']:>15.2f}"
    return f"{row['recipe']:<20}{row['batch']:>6}{figures}{best / times['pycv']:>13.2f}x"


if __name__ == "__main__":
    main()
