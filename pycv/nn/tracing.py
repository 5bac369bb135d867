"""What torch.fx and TorchScript make of pycv's layers: what they make of torch.nn's.

fx keeps layers with parameters whole, as ``call_module`` leaves. It knows them by their Python module's name, so a pycv
layer says it itself when it is called with a proxy. Layers without parameters need nothing: their op hands the proxy to
torch's function, which becomes a node. TorchScript compiles the source of ``forward``: it gets the torch.nn layer.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch.fx import Proxy


def leaf(layer: torch.nn.Module, input: Proxy, *arguments: Any) -> Proxy:
    """The node that calls this layer in the graph being traced."""
    tracer: Any = input.tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(layer), (input, *arguments), {})


def scriptable(module: torch.nn.Module, kind: type) -> torch.nn.Module:
    """What TorchScript compiles in a module's place, and puts there: the same state as an object of another class."""
    warnings.warn(
        f"torch.jit.script puts torch's {kind.__name__} in the place of pycv's, in the model too: script a copy "
        "(copy.deepcopy) to go on with pycv's",
        stacklevel=2,
    )
    twin = copy.copy(module)
    twin.__class__ = kind
    return twin


class Scriptable(torch.nn.Module):
    """A layer in whose place TorchScript compiles the torch.nn layer that it derives from: on torch's kernels."""

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return scriptable(self, next(kind for kind in type(self).__mro__ if kind.__module__.startswith("torch.")))
