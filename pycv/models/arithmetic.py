"""The figures that describe a network: parameters, multiply-accumulates, output sizes."""

from __future__ import annotations

from math import prod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .. import problem


def parameter_count(model: nn.Module, trainable_only: bool = True) -> int:
    """The number of parameters, each shared one counted once; frozen ones only with ``trainable_only=False``."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


@runtime_checkable
class Multiplier(Protocol):
    """A module that multiplies by a weight of its own, other than a convolution or linear layer."""

    def own_macs(self, x: Tensor) -> int: ...


def macs(model: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates of the convolutions and linear layers in one forward pass over these inputs.

    Biases, pooling, normalisation, activations and functional calls do not count, as is the custom, nor do products of
    two activations (attention). A module that multiplies by a weight of its own says so by ``own_macs(input)``. Runs
    the model once, in eval mode and without gradients; use a batch of one for the figure per image.
    """
    total = 0

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += _macs_of(module, args[0], output)

    counted = [m for m in model.modules() if isinstance(m, (_ConvNd, nn.Linear, Multiplier))]
    hooks = [module.register_forward_hook(count) for module in counted]
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
    return total


def _macs_of(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """A transposed convolution spreads every input, a convolution and a linear layer gather every output."""
    if isinstance(module, Multiplier):
        return module.own_macs(x)
    if isinstance(module, nn.Linear):
        return y.numel() * module.in_features
    assert isinstance(module, _ConvNd)
    window = prod(module.kernel_size)
    if isinstance(module, _ConvTransposeNd):
        return x.numel() * window * (module.out_channels // module.groups)
    return y.numel() * window * (module.in_channels // module.groups)


def output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, ceil_mode: bool = False
) -> int:
    """Positions of a convolution or pooling window along one axis of ``size`` elements.

    ``padding`` is per side. With ``ceil_mode`` a last window may reach beyond the padded end, if it starts inside
    the input or its left padding (torch's rule).

    Raises
    ------
    ValueError
        If an argument is out of its range or the window is larger than the padded input.
    """
    at_least_one = (("kernel", kernel, 1), ("stride", stride, 1), ("dilation", dilation, 1))
    for name, value, least in (("size", size, 0), ("padding", padding, 0), *at_least_one):
        if value < least:
            raise ValueError(f"{name}={value}: expected at least {least}")
    window = dilation * (kernel - 1) + 1
    if window > size + 2 * padding:
        padded = size + 2 * padding
        raise ValueError(f"kernel={kernel} with dilation={dilation} is larger than the padded input, {padded}")
    reach = size + stride - 1 if ceil_mode else size
    (positions,) = problem.output_size((reach,), (kernel,), (stride,), (padding,), (dilation,))
    return positions - 1 if ceil_mode and (positions - 1) * stride >= size + padding else positions
