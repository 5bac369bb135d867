"""The optimizer of a recipe: torch's own, with parameters in groups by decay and by layer.

Gradient descent on the whole data or on single samples needs nothing of its own: it is SGD with that batch size.
Frozen parameters are in no group. Weight decay is torch's (a penalty in the gradient, decoupled for AdamW); the L1
penalty is added to the gradient here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from . import recipe


def build(wanted: recipe.Optim, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that a recipe names, for what trains in the model.

    Raises
    ------
    ValueError
        If nothing trains, or the settings contradict each other.
    """
    groups = parameter_groups(wanted, model)
    if not groups:
        raise ValueError("model.freeze: leaves no parameter to train")
    if len(wanted.betas) != 2 or not all(0 <= beta < 1 for beta in wanted.betas):
        raise ValueError(f"optim.betas={list(wanted.betas)}: expected two numbers from 0 to below 1")
    if wanted.nesterov and not wanted.momentum:
        raise ValueError("optim.nesterov=true: needs optim.momentum above 0")
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "sgd": (torch.optim.SGD, {"momentum": wanted.momentum, "nesterov": wanted.nesterov}),
        "adagrad": (torch.optim.Adagrad, {"eps": wanted.epsilon}),
        "rmsprop": (
            torch.optim.RMSprop,
            {"alpha": wanted.smoothing, "momentum": wanted.momentum, "eps": wanted.epsilon},
        ),
        "adam": (torch.optim.Adam, {"betas": wanted.betas, "eps": wanted.epsilon}),
        "adamw": (torch.optim.AdamW, {"betas": wanted.betas, "eps": wanted.epsilon}),
    }
    kind, options = kinds[wanted.name]
    return kind(groups, lr=wanted.lr, **options)


def parameter_groups(wanted: recipe.Optim, model: nn.Module) -> list[dict]:
    """Groups with ``params``, ``weight_decay``, ``penalised`` (L1 and L2 hold) and ``scale``, the layer's share of the
    learning rate: 1 for the last layer, ``layer_decay`` times less for each layer before it."""
    layers = [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]
    members: dict[tuple[bool, float], list[nn.Parameter]] = {}
    seen: set[int] = set()
    for behind, layer in zip(range(len(layers) - 1, -1, -1), layers, strict=True):
        scale = wanted.layer_decay**behind
        for parameter in layer.parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:  # tied ones belong to their first layer
                seen.add(id(parameter))
                # Biases and the parameters of normalisation are vectors.
                members.setdefault((wanted.decay_all or parameter.dim() > 1, scale), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": wanted.weight_decay if penalised else 0.0,
            "penalised": penalised,
            "scale": scale,
        }
        for (penalised, scale), parameters in members.items()
    ]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """This learning rate for the last layer, and its share of it for every other."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def set_momentum(optimizer: torch.optim.Optimizer, momentum: float) -> None:
    """This momentum, or first of Adam's betas, where there is one."""
    for group in optimizer.param_groups:
        if "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        elif optimizer.defaults.get("momentum"):  # the recipe's; the group's may be 0 at the highest rate
            group["momentum"] = momentum


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Takes up what the optimizer has gathered, with its settings as they are here; the rate is set at every step."""
    settings = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, here in zip(optimizer.param_groups, settings, strict=True):
        group.update({name: value for name, value in here.items() if name not in ("params", "lr")})


def trained(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters that it changes."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@torch.no_grad()
def add_l1(optimizer: torch.optim.Optimizer, weight: float) -> None:
    """The gradient of ``weight`` Σ|w| onto what there is; at 0 it is 0."""
    for group in optimizer.param_groups:
        if group["penalised"]:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.sign(), alpha=weight)
