"""A moving average of a network's weights, which is often worth more than the weights themselves.

After each step average ← d average + (1 - d) weights, with d smaller at first: min(decay, (1 + step) / (10 + step)), so
that the random start is soon forgotten. What batch normalisation has counted is averaged as well.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Average:
    """``model`` is the averaged network, never trained."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = copy.deepcopy(model).eval().requires_grad_(False), decay

    @torch.no_grad()
    def follow(self, model: nn.Module, step: int) -> None:
        """Takes in the weights after a step, counted from 1."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        own, theirs = _tensors(self.model), _tensors(model)
        moving = [pair for pair in zip(own, theirs, strict=True) if pair[0].is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in moving], [value for _, value in moving], weight)
        for counter, value in zip(own, theirs, strict=True):
            if not counter.is_floating_point():
                counter.copy_(value)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*(parameter.detach() for parameter in model.parameters()), *model.buffers()]
