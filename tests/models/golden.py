"""The golden figures of tests/data/zoo_golden.json: shapes of the state_dict and outputs of the usual implementation.

The outputs are those of the network in float64 and eval mode, with weights that :func:`fill` makes from their names and
shapes alone, on :func:`golden_input`: both are those of golden_weights.py beside the figures, as it came with them.
"""

import json
from functools import cache
from pathlib import Path

import torch

from ..data.golden_weights import fill, golden_input

__all__ = ["calibrate", "entries", "fill", "golden_input"]


@cache
def entries() -> dict[str, dict]:
    """By model: ``params``, ``state_dict`` (key to shape), ``input_size``, often ``logits_first8``, ``logits_norm``."""
    return json.loads(Path(__file__).parents[1].joinpath("data/zoo_golden.json").read_text())


def calibrate(model: torch.nn.Module, x: torch.Tensor) -> torch.nn.Module:
    """Gives every batch normalisation the statistics of this batch, and leaves the model in eval mode.

    At default initialisation the outputs of a deep network may collapse, and any comparison of them passes.
    """
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return model.eval()
