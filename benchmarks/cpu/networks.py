"""Whole networks through ``pycv.patch``: inference of VGG-16 and ResNet-18, and a training step of ResNet-18.

torch and pycv, each in both memory formats, are timed side by side on 224x224 images (pycv.timing). Every contender
is also compared with float64: the outputs of the first image in inference (largest difference), the gradients of all
parameters in training (norm of the difference: a value within rounding of 0 may fall on either side of a ReLU, and one
gradient with it). Both as a share of the exact ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import pycv
from pycv.bench import goals
from pycv.bench.network_worker import FORMATS, unpatched
from pycv.timing import measure

CONTENDERS = ("torch:nchw", "torch:nhwc", "pycv@nchw", "pycv@nhwc")
INFERENCE = (("vgg16", goals.Goal("network", 2.0, 2.5)), ("resnet18", goals.Goal("network", 1.5, 2.0)))
BATCHES, TRAINING_BATCH = (1, 8), 8
TRAINING = (("resnet18", goals.Goal("training step", 1.4, 1.8, kept=False)),)


def rows(seconds: float = 20.0, image: int = 224) -> Iterator[goals.Row]:
    """One row per network, batch size and mode, as soon as it is measured. ``image``: height and width."""
    for name, goal in INFERENCE:
        for batch in BATCHES:
            yield inference(name, goal, batch, seconds, image)
    for name, goal in TRAINING:
        yield training(name, goal, TRAINING_BATCH, seconds, image)


def parts(contender: str) -> list[str]:
    """Who, and the layout."""
    return contender.replace("@", ":").split(":")


def contender(model: nn.Module, name: str) -> nn.Module:
    """A copy of the network on torch or pycv in a memory format. Linear layers share their weights with it."""
    who, layout = parts(name)
    linear = (m for m in model.modules() if isinstance(m, nn.Linear))
    made = copy.deepcopy(model, {id(p): p for m in linear for p in m.parameters() if not model.training})
    made = made.to(memory_format=FORMATS[layout])
    if who == "pycv":
        pycv.patch(made)
    return made


def inference(name: str, goal: goals.Goal, batch: int, seconds: float, image: int) -> goals.Row:
    model, x = unpatched(name).eval(), torch.randn(batch, 3, image, image)
    calls: dict[str, Callable[[], Tensor]] = {}
    for each in CONTENDERS:
        made, given = contender(model, each), x.to(memory_format=FORMATS[parts(each)[1]])
        calls[each] = lambda made=made, given=given: made(given)
    with torch.no_grad():
        timings = measure(calls, seconds)
        outputs = {each: call()[:1].double() for each, call in calls.items()}
        calls.clear()
        expected = model.double()(x[:1].double())
    largest = expected.abs().max()
    errors = {each: ((output - expected).abs().max() / largest).item() for each, output in outputs.items()}
    return goals.network_row(name, name, batch, goal, timings, errors)


def training(name: str, goal: goals.Goal, batch: int, seconds: float, image: int) -> goals.Row:
    """Forward, backward and a step of SGD with momentum."""
    model = unpatched(name).train()
    x, labels = torch.randn(batch, 3, image, image), torch.arange(batch)
    made = {each: contender(model, each) for each in CONTENDERS}

    def gradients(network: nn.Module, given: Tensor) -> list[Tensor]:
        network.zero_grad()
        cross_entropy(network(given), labels).backward()
        return [p.grad for p in network.parameters() if p.grad is not None]

    inputs = {each: x.to(memory_format=FORMATS[parts(each)[1]]) for each in CONTENDERS}
    expected = gradients(copy.deepcopy(model).double(), x.double())
    errors = {}
    for each, network in made.items():
        pairs = zip(gradients(network, inputs[each]), expected, strict=True)
        errors[each] = max(((got.double() - wanted).norm() / wanted.norm()).item() for got, wanted in pairs)

    def step(network: nn.Module, given: Tensor, optimizer: torch.optim.Optimizer) -> None:
        gradients(network, given)
        optimizer.step()

    calls = {}
    for each, network in made.items():
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
        calls[each] = lambda network=network, given=inputs[each], optimizer=optimizer: step(network, given, optimizer)
    return goals.network_row(name, name, batch, goal, measure(calls, seconds), errors)
