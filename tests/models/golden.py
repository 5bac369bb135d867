"""The golden figures of tests/data/zoo_golden.json: shapes of the state_dict and outputs of the usual implementation.

The outputs are those of the network in float64 and eval mode, with weights that :func:`fill` makes from their names and
shapes alone, on :func:`golden_input`.
"""

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch


@cache
def entries() -> dict[str, dict]:
    """By model: ``params``, ``state_dict`` (key to shape), ``input_size``, often ``logits_first8``, ``logits_norm``."""
    return json.loads(Path(__file__).parents[1].joinpath("data/zoo_golden.json").read_text())


def fill(state_dict: dict[str, torch.Tensor]) -> None:
    """Overwrite every tensor, in place, with float64 values cast to its dtype."""
    for key, tensor in state_dict.items():
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        tensor.copy_(torch.from_numpy(np.asarray(_values(key, tuple(tensor.shape), rng))).reshape(tensor.shape))


def _values(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape)
    if key.endswith("running_mean"):
        return 0.1 * rng.standard_normal(shape)
    if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) <= 1:
        return 0.05 * rng.standard_normal(shape)
    return rng.standard_normal(shape) * np.sqrt(2.0 / int(np.prod(shape[1:])))


def golden_input(size: int) -> torch.Tensor:
    """float64 images (2, 3, size, size), N(0, 1)."""
    return torch.from_numpy(np.random.default_rng(2024).standard_normal((2, 3, size, size)))


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
