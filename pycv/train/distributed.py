"""Several processes as torchrun starts them, on one machine or many; alone, all of this is a matter of course.

Every process has its share of each batch and the same weights; gradients are averaged by DistributedDataParallel. What
is counted is summed over all of them, so that each knows and decides the same. Process 0 writes the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class Group:
    """This process among all."""

    rank: int
    world: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over all processes, in float64."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """What every process gives, by rank."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, value)
        return found

    def share_buffers(self, model: nn.Module) -> None:
        """Gives all processes the buffers of process 0: each has seen other pictures in batch normalisation."""
        if self.world > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def barrier(self) -> None:
        """Returns when all processes are here."""
        self.gather(None)


def choose_device(wanted: str, local_rank: int = 0, key: str = "loop.device") -> torch.device:
    """``auto``: the GPU of this process if there is one; ValueError, by ``key``, if there is none but one is wanted."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{key}='cuda': torch finds no GPU here")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(f"LOCAL_RANK={local_rank}: this machine has {torch.cuda.device_count()} GPUs; start fewer")
    return torch.device("cuda", local_rank)


@contextmanager
def joined(wanted_device: str) -> Iterator[Group]:
    """This process among those that torchrun started (by its environment variables), alone without it; gloo between
    CPUs, NCCL between GPUs."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(wanted_device, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world == 1 or distributed.is_initialized():
        rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
        yield Group(rank, world, device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(distributed.get_rank(), world, device)
    finally:
        distributed.destroy_process_group()


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch normalisation over the pictures of all processes.

    Raises
    ------
    ValueError
        On the CPU, where torch has none.
    """
    if device.type != "cuda":
        raise ValueError(f"loop.sync_batchnorm=true: torch has it on GPUs only, this runs on {device.type}")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
