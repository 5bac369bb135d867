"""The torch.library namespace ``pycv``: the ops as compilers and dispatch modes see them.

Every op carries the settings in force at the call as text, its last argument, so that a compiled graph runs forward
and backward under them wherever and whenever it runs. The Python code that emits the op is traced, so it reads them
with ``settings.current_text()``: torch.compile guards on that reading and compiles again when the settings change.
"""

import torch
from torch.utils.flop_counter import register_flop_formula

LIB = torch.library.Library("pycv", "DEF")


def define(schema: str, implementation, fake, flops, setup_context, backward) -> None:
    """Adds an op: its schema, the function that runs it eagerly, the one that only says shape and strides, and the one
    that counts floating-point operations from shapes for torch's FlopCounterMode, and its autograd formula."""
    name = schema.partition("(")[0]
    LIB.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIB.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"pycv::{name}", fake, lib=LIB)
    torch.library.register_autograd(f"pycv::{name}", backward, setup_context=setup_context, lib=LIB)
    register_flop_formula(getattr(torch.ops.pycv, name))(flops)
