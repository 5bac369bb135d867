"""Whole networks: inference of VGG-16 and ResNet-18 through ``pycv.patch``, and a training step of ResNet-18.

    python benchmarks/networks.py [--case resnet18 resnet18/train ...] [--batch 1 8] [--seconds 10] [--json FILE]

torch and pycv, each in both memory formats, are timed side by side on 224×224 images (pycv.timing); the ratio is
the faster format of torch over the faster one of pycv. Every contender is also compared with float64: the outputs
of the first image in inference, the gradients of all parameters in training.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import pycv
from pycv import models
from pycv.bench.machine import describe
from pycv.timing import measure

Row = dict[str, Any]
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
CONTENDERS = [f"{who}:{layout}" for who in ("torch", "pycv") for layout in FORMATS]
CASES = ("vgg16", "resnet18", "resnet18/train")


def unpatched(name: str) -> nn.Module:
    """The network with torch.nn's layers, whose initialisation it keeps."""
    model = models.create(name)
    for module in model.modules():
        twin = next((base for base in type(module).__mro__ if base.__module__.startswith("torch.nn.modules")), None)
        if type(module).__module__.startswith("pycv.nn") and twin is not None:
            module.__class__ = twin
    return model


def contender(model: nn.Module, name: str) -> nn.Module:
    """A copy of the network on torch or pycv in a memory format. Linear layers share their weights with it."""
    who, layout = name.split(":")
    linear = (m for m in model.modules() if isinstance(m, nn.Linear))
    made = copy.deepcopy(model, {id(p): p for m in linear for p in m.parameters() if not model.training})
    made = made.to(memory_format=FORMATS[layout])
    if who == "pycv":
        pycv.patch(made)
    return made


def inference(name: str, batch: int, seconds: float) -> list[Row]:
    model, x = unpatched(name).eval(), torch.randn(batch, 3, 224, 224)
    calls: dict[str, Callable[[], Tensor]] = {}
    for each in CONTENDERS:
        made, given = contender(model, each), x.to(memory_format=FORMATS[each.split(":")[1]])
        calls[each] = lambda made=made, given=given: made(given)
    with torch.no_grad():
        timings = measure(calls, seconds)
        outputs = {each: call()[:1].double() for each, call in calls.items()}
        calls.clear()
        expected = model.double()(x[:1].double())
    errors = {each: _error(output, expected) for each, output in outputs.items()}
    return _rows(name, "inference", batch, timings, errors)


def training(name: str, batch: int, seconds: float) -> list[Row]:
    """Forward, backward and a step of SGD with momentum."""
    model = unpatched(name).train()
    x, labels = torch.randn(batch, 3, 224, 224), torch.randint(0, 1000, (batch,))
    made = {each: contender(model, each) for each in CONTENDERS}

    def gradients(network: nn.Module, given: Tensor) -> list[Tensor]:
        network.zero_grad()
        cross_entropy(network(given), labels).backward()
        return [p.grad for p in network.parameters() if p.grad is not None]

    inputs = {each: x.to(memory_format=FORMATS[each.split(":")[1]]) for each in CONTENDERS}
    expected = gradients(copy.deepcopy(model).double(), x.double())
    errors = {}
    for each, network in made.items():
        pairs = zip(gradients(network, inputs[each]), expected, strict=True)
        errors[each] = max(_error(got.double(), wanted) for got, wanted in pairs)

    def step(network: nn.Module, given: Tensor, optimizer: torch.optim.Optimizer) -> None:
        gradients(network, given)
        optimizer.step()

    calls = {}
    for each, network in made.items():
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
        calls[each] = lambda network=network, given=inputs[each], optimizer=optimizer: step(network, given, optimizer)
    return _rows(name, "training step", batch, measure(calls, seconds), errors)


def _error(got: Tensor, wanted: Tensor) -> float:
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


def _rows(name: str, mode: str, batch: int, timings: dict, errors: dict[str, float]) -> list[Row]:
    return [
        {"network": name, "mode": mode, "batch": batch, "contender": each, "threads": torch.get_num_threads()}
        | asdict(timings[each])
        | {"error": errors[each]}
        for each in CONTENDERS
    ]


def table(rows: list[Row]) -> str:
    """A line per network, mode and batch: milliseconds of each contender, and ratios torch / pycv."""
    lines = [f"{'network':<10}{'':<15}{'batch':>5}" + "".join(f"{c:>12}" for c in CONTENDERS)]
    lines[0] += f"{'nchw':>8}{'nhwc':>8}{'best':>8}{'error':>10}"
    cases: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        cases.setdefault((row["network"], row["mode"], row["batch"]), {})[row["contender"]] = row
    for (name, mode, batch), found in cases.items():
        ms = {each: 1e3 * row["seconds"] for each, row in found.items()}
        noisy = {each: "~" if row["noisy"] else " " for each, row in found.items()}
        line = f"{name:<10}{mode:<15}{batch:>5}" + "".join(f"{ms[c]:>11.1f}{noisy[c]}" for c in CONTENDERS)
        line += "".join(f"{ms[f'torch:{layout}'] / ms[f'pycv:{layout}']:>8.2f}" for layout in FORMATS)
        best = {who: min(ms[f"{who}:{layout}"] for layout in FORMATS) for who in ("torch", "pycv")}
        error = max(found[f"pycv:{layout}"]["error"] for layout in FORMATS)
        lines.append(f"{line}{best['torch'] / best['pycv']:>8.2f}{error:>10.1e}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", default=CASES, help="NAME or NAME/train; default: %(default)s")
    parser.add_argument("--batch", nargs="+", type=int, default=(1, 8), help="of inference; training steps take 8")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each line of the table")
    parser.add_argument("--json", type=Path, help="where to record")
    options = parser.parse_args()
    torch.manual_seed(0)
    rows: list[Row] = []
    for case in options.case:
        name, _, mode = case.partition("/")
        for batch in (8,) if mode else options.batch:
            rows += (training if mode else inference)(name, batch, options.seconds)
            print(table(rows[-len(CONTENDERS) :]), flush=True)
    if options.json:
        recorded = datetime.now(timezone.utc).isoformat(timespec="seconds")
        options.json.write_text(
            json.dumps({"recorded": recorded, "machine": describe(), "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
