"""Using a trained network for something else: its features, its embedding, part of it frozen, another head.

Layers are named as in ``model.named_modules()``, and "before" means before in that order, in which networks define
their layers as their data runs through them.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd


def features(model: nn.Module, x: Tensor, layers: str | Sequence[str]) -> dict[str, Any]:
    """The outputs of some layers (or of one) in one forward pass, by name in the order given; of a layer that runs more
    than once, the last.

    Each is a copy, made when the layer has run: what works in place behind it (an activation, a residual sum) does not
    show. The model runs as it is: call ``eval()`` first, and ``torch.no_grad()`` where no gradient is wanted.

    Raises
    ------
    ValueError
        If there is no layer of a name (the message lists the nearest ones), or it does not run.
    """
    layers = [layers] if isinstance(layers, str) else layers
    found: dict[str, Any] = {}

    def keep(name: str):
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            found[name] = _copied(output)

        return hook

    handles = []
    try:
        for name in layers:
            handles.append(_layer(model, name).register_forward_hook(keep(name)))
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    if unused := [name for name in layers if name not in found]:
        raise ValueError(f"layers={unused}: did not run in this pass")
    return {name: found[name] for name in layers}


def embed(model: nn.Module, x: Tensor) -> Tensor:
    """The input of the last layer, (N, features): a description of each image that does not depend on the classes.

    Of a last layer that is a convolution (SqueezeNet) its input is averaged over the positions. The model runs as it
    is, as in :func:`features`. Raises ValueError as :func:`replace_head`.
    """
    inputs: list[Tensor] = []
    handle = model.get_submodule(heads(model)[0]).register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    try:
        model(x)
    finally:
        handle.remove()
    found = inputs[-1].clone()
    return found.flatten(2).mean(2) if found.dim() > 2 else found


def freeze(model: nn.Module, until: str | None = None) -> list[str]:
    """Stop training what comes before the layer ``until``, or everything but the heads; returns the frozen parameters.

    Batch normalisation among it normalises by the statistics that it has and keeps them, whatever ``model.train()``
    says. :func:`unfreeze` undoes it.

    Raises
    ------
    ValueError
        If there is no layer of that name (the message lists the nearest ones); or as :func:`replace_head`.
    """
    if until is not None:
        _layer(model, until)
    kept = [until] if until is not None else [*heads(model), *auxiliary_heads(model)]
    frozen: list[str] = []
    for name, module in model.named_modules():
        if name == until:
            break
        if any(name == head or name.startswith(head + ".") for head in kept):
            continue
        for key, parameter in module.named_parameters(name, recurse=False):
            parameter.requires_grad_(False)
            frozen.append(key)
        if isinstance(module, _NormBase) and _keep_in_eval not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_keep_in_eval)
            module.eval()
    return frozen


def unfreeze(model: nn.Module) -> None:
    """Train every parameter again, and let batch normalisation follow ``model.train()``."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if hook is _keep_in_eval:
                del module._forward_pre_hooks[key]
                module.train(model.training)


def replace_head(model: nn.Module, num_classes: int) -> nn.Module:
    """Put a new last layer for so many classes into a model (and into its auxiliary heads), and return the model.

    The new layer has the type, dtype and device of the old one, is newly initialised, and trains.

    Raises
    ------
    ValueError
        If ``num_classes`` is not positive, or the model ends in no linear layer or convolution.
    TypeError
        If ``num_classes`` is no whole number.
    """
    require_classes(num_classes)
    for name in heads(model):
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, _with_outputs(model.get_submodule(name), num_classes))
    return model


def require_classes(count: object) -> None:
    """Raises TypeError or ValueError for what is no number of classes."""
    if not isinstance(count, Integral) or isinstance(count, bool):
        raise TypeError(f"num_classes={count!r}: expected a whole number")
    if int(count) < 1:
        raise ValueError(f"num_classes={count}: expected at least 1")


def heads(model: nn.Module) -> list[str]:
    """The names of the layers that give the logits: the last one of the model, then those of its auxiliary heads.

    Raises ValueError if the last module that has parameters or buffers is no linear layer or convolution.
    """
    auxiliary = auxiliary_heads(model)
    found = [_last_layer(model, "", without=auxiliary)]
    return found + [_last_layer(model.get_submodule(name), name + ".") for name in auxiliary]


def auxiliary_heads(model: nn.Module) -> list[str]:
    """The children that classify from the middle of the network while it is trained: ``aux1``, ``AuxLogits``."""
    return [name for name, _ in model.named_children() if name.lower().startswith("aux")]


def _last_layer(model: nn.Module, prefix: str, without: Sequence[str] = ()) -> str:
    name, layer = "", model
    for path, module in model.named_modules():
        if path.partition(".")[0] not in without and (module._parameters or module._buffers):
            name, layer = path, module
    if not isinstance(layer, (nn.Linear, _ConvNd)) or not name:
        raise ValueError(f"{type(model).__name__} ends in {type(layer).__name__}, not in a linear layer or convolution")
    return prefix + name


def _with_outputs(layer: nn.Module, outputs: int) -> nn.Module:
    """A layer like this one with another number of outputs."""
    options: dict[str, Any] = {"bias": layer.bias is not None}
    options |= {"dtype": layer.weight.dtype, "device": layer.weight.device}
    if isinstance(layer, nn.Linear):
        return type(layer)(layer.in_features, outputs, **options)
    assert isinstance(layer, _ConvNd)
    options |= {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")}
    return type(layer)(layer.in_channels, outputs, layer.kernel_size, **options)


def _keep_in_eval(module: nn.Module, args: Any) -> None:
    module.training = False


def _layer(model: nn.Module, name: str) -> nn.Module:
    known = dict(model.named_modules())
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or list(known)[1:6]
        raise ValueError(f"layer {name!r}: {type(model).__name__} has none of that name; near it: {', '.join(near)}")
    return known[name]


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, (tuple, list)):
        return tuple(_copied(element) for element in value)
    return value
