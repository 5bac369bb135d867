"""What each kind of layer costs in a forward pass and in a training step, and which kernels ran for it.

Hooks around every module give the time of its forward pass less that of the modules inside it. For the backward pass
the nodes of autograd's graph that came into being while a module ran are its own, and hooks around each of them give
its time: that holds for layers that work in place too, on which torch's own backward hooks fail. A copy of the model is
timed; the model itself, its statistics and the random state stay as they were.

``pycv.explain`` answers in more detail for the forward pass of a model; it stands above training in the house.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ... import registry
from ...models.trace import tensors

LOSS = "loss"  # the row of what lies outside of the model
PASSES = ("inference", "forward", "backward")
MOST_ROUNDS = 5
SECONDS = 2.0  # in which rounds begin; there is one at least


@dataclass
class Cost:
    """All modules of one class together. In seconds; ``kernels`` counts the calls of a training step by
    ``backend:algorithm`` and pass."""

    kind: str
    layers: int = 0
    inference: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    kernels: Counter[tuple[str, str]] = field(default_factory=Counter)


def layer_costs(model: nn.Module, images: Tensor) -> list[Cost]:
    """The costs of an inference and of a training step (less the optimizer's) by kind, the dearest first.

    After a first round that does not count, medians of up to five. The settings in force (``pycv.use``) choose the
    kernels.

    Parameters
    ----------
    images : a batch as the model takes it, on the model's device.
    """
    with torch.random.fork_rng(_devices(images)):
        model = copy.deepcopy(model)
        if not any(parameter.requires_grad for parameter in model.parameters()):  # averaged weights
            model.requires_grad_(True)
        _round(model, images)
        began, rounds = time.perf_counter(), [_round(model, images)]
        while len(rounds) < MOST_ROUNDS and time.perf_counter() - began < SECONDS:
            rounds.append(_round(model, images))
    costs = []
    for kind, cost in rounds[0].items():
        seconds = {name: median(getattr(costs[kind], name) for costs in rounds) for name in PASSES}
        if any(seconds.values()):
            costs.append(Cost(kind, cost.layers, **seconds, kernels=cost.kernels))
    return sorted(costs, key=lambda cost: -(cost.forward + cost.backward))


def _round(model: nn.Module, images: Tensor) -> dict[str, Cost]:
    """One inference and one training step, by kind."""
    costs = {LOSS: Cost(LOSS)}
    for module in model.modules():
        costs.setdefault(type(module).__name__, Cost(type(module).__name__)).layers += 1
    model.eval()
    with torch.no_grad(), _Stopwatch(costs, "inference", images.device).around(model):
        model(images)
    model.train()
    model.zero_grad(set_to_none=True)
    stopwatch = _Stopwatch(costs, "forward", images.device)
    with stopwatch.around(model):
        loss = _loss(model(images))
    with stopwatch.backward(loss):
        loss.backward()
    return costs


def _devices(images: Tensor) -> list[torch.device]:
    return [images.device] if images.is_cuda else []


def _loss(output: Any) -> Tensor:
    """A loss that gives every output a dense gradient, whatever the heads are."""
    return torch.stack([head.float().square().mean() for head in tensors(output)]).sum()


class _Stopwatch:
    """Adds seconds and kernels to the costs of the modules that they belong to, innermost first."""

    def __init__(self, costs: dict[str, Cost], column: str, device: torch.device) -> None:
        self._costs, self._column, self._device = costs, column, device
        self._running: list[str] = []
        self._since = 0.0
        self._log: list[registry.Call] = []
        self._nodes: dict[Any, str] = {}  # node of autograd's graph -> kind; holding it keeps its identity
        self._entries: list[set[Any]] = []  # per running module: the nodes of its inputs

    def _charge(self, kind: str, column: str) -> None:
        """What passed since the last charge is this kind's."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        cost = self._costs[kind]
        setattr(cost, column, getattr(cost, column) + time.perf_counter() - self._since)
        if column != "inference":
            cost.kernels.update((call.choice.kernel.name, call.choice.problem.pass_) for call in self._log)
        self._log.clear()
        self._since = time.perf_counter()

    @contextmanager
    def around(self, model: nn.Module) -> Iterator[None]:
        with ExitStack() as stack:
            for module in model.modules():
                stack.enter_context(_removed(module.register_forward_pre_hook(self._enter, with_kwargs=True)))
                stack.enter_context(_removed(module.register_forward_hook(self._leave)))
            self._log = stack.enter_context(registry.record())
            self._since = time.perf_counter()
            yield

    def _enter(self, module: nn.Module, arguments: Any, keywords: Any) -> None:
        if self._running:
            self._charge(self._running[-1], self._column)
        self._running.append(type(module).__name__)
        self._entries.append({t.grad_fn for t in tensors((arguments, keywords)) if t.grad_fn is not None})
        self._since = time.perf_counter()

    def _leave(self, module: nn.Module, arguments: Any, output: Any) -> None:
        kind = self._running.pop()
        self._charge(kind, self._column)
        entries = self._entries.pop()
        for node in _between(entries, [t.grad_fn for t in tensors(output)]):
            self._nodes.setdefault(node, kind)
        self._since = time.perf_counter()

    @contextmanager
    def backward(self, loss: Tensor) -> Iterator[None]:
        """Hooks on every node of the graph; the nodes of no module are the loss's."""
        with ExitStack() as stack:
            for node in _between(set(), [loss.grad_fn]):
                kind = self._nodes.get(node, LOSS)
                stack.enter_context(_removed(node.register_prehook(lambda *_: self._start())))
                stack.enter_context(_removed(node.register_hook(lambda *_, kind=kind: self._charge(kind, "backward"))))
            self._log = stack.enter_context(registry.record())
            yield
        self._nodes.clear()

    def _start(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._since = time.perf_counter()


def _between(entries: set[Any], outputs: Sequence[Any]) -> Iterator[Any]:
    """The nodes from the outputs back to the entries, which are not among them, or to the leaves, which are."""
    seen = {None, *entries}
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [before for before, _ in node.next_functions]


@contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
