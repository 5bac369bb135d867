"""torch.fx takes pycv's layers with parameters for what it takes torch.nn's: leaves, kept whole as ``call_module``.

fx knows its leaves by their Python module's name, so a pycv layer says it itself when it is called with a proxy. Layers
without parameters need nothing: their op hands the proxy to torch's function, which becomes a node.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Proxy


def leaf(layer: torch.nn.Module, input: Proxy, *arguments: Any) -> Proxy:
    """The node that calls this layer in the graph being traced."""
    tracer: Any = input.tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(layer), (input, *arguments), {})
