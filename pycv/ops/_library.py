"""The torch.library namespace ``pycv``: the ops as compilers and dispatch modes see them.

Every op carries the settings in force when it was traced as text (``settings.traced_text``), so that a compiled graph
runs, forward and backward, what its author asked for. The autograd functions stand outside these ops.
"""

import torch

LIB = torch.library.Library("pycv", "DEF")


def define(schema: str, implementation, fake) -> None:
    """Adds an op: its schema, the function that runs it eagerly, and the one that only says shape and strides."""
    name = schema.partition("(")[0]
    LIB.define(schema)
    LIB.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"pycv::{name}", fake, lib=LIB)
