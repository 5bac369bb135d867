"""Where and how numbers lie: device, memory format, and the precision of mixed-precision arithmetic."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .recipe import Loop

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Placement:
    device: torch.device
    channels_last: bool = False
    amp: str = "none"

    @classmethod
    def of(cls, loop: Loop, device: torch.device) -> Placement:
        return cls(device, loop.channels_last, loop.amp)

    def model(self, model: nn.Module) -> nn.Module:
        """The model itself, moved."""
        model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model  # type: ignore[call-overload]

    def images(self, images: Tensor) -> Tensor:
        layout = torch.channels_last if self.channels_last and images.dim() == 4 else torch.preserve_format
        return images.to(self.device, non_blocking=True, memory_format=layout)

    def targets(self, targets: Tensor) -> Tensor:
        return targets.to(self.device, non_blocking=True)

    def autocast(self) -> AbstractContextManager:
        """Around forward and loss: bf16 or fp16 where torch thinks it safe, with ``amp``."""
        if self.amp == "none":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.amp])

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps gradients of fp16 in range; for the other precisions it does nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.amp == "fp16")
