"""A training step of each recipe's network on pycv's layers, beside the same network on torch's.

    python -m benchmarks.training_step [--recipe NAME ...] [--seconds 40] [--json FILE]

A step is what `pycv train` does with a batch: forward, the recipe's loss, backward, the recipe's optimizer; the batch
is noise, the recipe's size of picture, and the recipe's number of them or as many as have the pixels of eight
of 224×224. Both sides run in both memory formats, interleaved (pycv.timing); the ratio is that of each side's
faster one. ``errors``: the norm of the difference between a side's first gradient and float64's on torch's layers, as a
share of the norm; the worse of its two memory formats. A deep network with batch normalisation multiplies rounding,
whoever rounds.
"""

from __future__ import annotations

import argparse
import copy
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cpu.networks import CONTENDERS, contender, parts
from pycv import models
from pycv.bench import machine
from pycv.bench.network_worker import FORMATS, on_torch_layers
from pycv.timing import measure
from pycv.train import losses, optimizers, recipe

MOST_PIXELS = 8 * 224**2  # of a batch


class Step:
    """One side's network, its optimizer and its batch; calling it trains one step."""

    def __init__(self, wanted: recipe.Recipe, network: nn.Module, x: Tensor, labels: Tensor) -> None:
        self.network, self.x, self.labels = network, x, labels
        self.loss = losses.build(wanted.loss)
        self.optimizer = optimizers.build(wanted.optim, network)
        optimizers.set_rate(self.optimizer, 1e-6)  # on noise the recipe's rate soon gives infinities, which cost more

    def __call__(self) -> None:
        self._backward()
        self.optimizer.step()

    def gradient(self) -> Tensor:
        """All of them as one vector, in float64; dropout draws the same on every side."""
        torch.manual_seed(1)
        self._backward()
        return torch.cat([p.grad.flatten().double() for p in self.network.parameters() if p.grad is not None])

    def _backward(self) -> None:
        self.optimizer.zero_grad()
        self.loss(self.network(self.x), self.labels).backward()


def row(wanted: recipe.Recipe, seconds: float) -> dict[str, Any]:
    """One recipe, measured."""
    torch.manual_seed(0)
    model = on_torch_layers(models.create(wanted.model.name, **wanted.model.arguments))
    size = wanted.augment.size
    batch = max(1, min(wanted.batch_size, MOST_PIXELS // size**2))
    channels = next(module for module in model.modules() if isinstance(module, nn.Conv2d)).in_channels
    x = torch.randn(batch, channels, size, size)
    labels = torch.randint(0, model.eval()(x[:1]).shape[1], (batch,))
    model.train()
    exact = Step(wanted, copy.deepcopy(model).double(), x.double(), labels).gradient()
    steps = {
        each: Step(wanted, contender(model, each), x.to(memory_format=FORMATS[parts(each)[1]]), labels)
        for each in CONTENDERS
    }
    errors = {each: ((step.gradient() - exact).norm() / exact.norm()).item() for each, step in steps.items()}
    timings = measure(steps, seconds)
    sides = {who: [each for each in CONTENDERS if parts(each)[0] == who] for who in ("torch", "pycv")}
    fastest = {who: min(timings[each].seconds for each in mine) for who, mine in sides.items()}
    return {
        "recipe": wanted.name, "model": wanted.model.name, "batch": batch, "size": size,
        "ratio": fastest["torch"] / fastest["pycv"],
        "images_per_second": {who: batch / least for who, least in fastest.items()},
        "seconds": {each: timing.seconds for each, timing in timings.items()},
        "noisy": any(timing.noisy for timing in timings.values()),
        "errors": {who: max(errors[each] for each in mine) for who, mine in sides.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.training_step", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--recipe", nargs="+", default=recipe.names(), help="default: all that come with pycv")
    parser.add_argument("--seconds", type=float, default=40.0, help="how long to measure each, roughly")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    rows = []
    print(f"{'':<26}{'images per second':^24}{'':<8}{'error of the gradient':^24}")
    print(f"{'recipe':<20}{'batch':>6}{'torch':>12}{'pycv':>12}{'ratio':>8}{'torch':>12}{'pycv':>12}")
    for name in arguments.recipe:
        rows.append(found := row(recipe.load(name), arguments.seconds))
        torchs, own = found["images_per_second"]["torch"], found["images_per_second"]["pycv"]
        errors = "".join(f"{found['errors'][who]:>12.1e}" for who in ("torch", "pycv"))
        figures = f"{torchs:>12,.1f}{own:>12,.1f}{found['ratio']:>8.2f}{errors}"
        print(f"{name:<20}{found['batch']:>6}{figures}{'   noisy' if found['noisy'] else ''}", flush=True)
    if arguments.json:
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        threads = torch.get_num_threads()
        record = {"rows": rows, "threads": threads, "machine": machine.describe(), "date": date}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
